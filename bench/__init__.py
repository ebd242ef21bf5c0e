"""Benchmarks: named suites, each measuring ourselves beside a peer, in one run, as a ratio.

    histories   synthetic data, seeded      loader   Loader from an example log against Fat Rows in Parquet
    sources     the data on disk            scan     Materializer in memory against memcpy, slices and C++ stripes
    timing      interleaved passes          report   tables, and what missed its floor
    machine     what it ran on

`python -m bench [suite]` runs them; `make bench` does so with the settings that are quoted.
"""
