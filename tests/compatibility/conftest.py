"""Lets the tests of this folder import `plain_reader`: tests are no packages (pytest's importlib mode)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
