"""Two sequence models, trained with latewood on real data: HSTU and SASRec, predicting the item that comes next.

Meant to be read and copied. `python -m trainings --help` runs them; with `--parity` one run is fed from Fat Rows and from
latewood, and the losses are compared bit by bit.
"""
