"""`python -m latewood`: the command line."""

from latewood.cli import main

main()
