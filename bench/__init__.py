"""Benchmarks: named suites, each measuring ourselves beside a peer, in one run, as a ratio.

    suites      what is measured, one module each     session     settings, and the data that suites share
    histories   synthetic data, seeded                dirty       the same with late, tied and recent events
    sources     the data on disk                      peers       readers in other libraries, all optional
    cxx         a prototype in C++                    cache_lines the least that anything must read
    timing      interleaved passes, medians           apart       processes of their own, and their memory
    digests     whether two sides give the same       machine     what it ran on
    report      lines, tables, JSON, bounds           saved       the JSON of a run, suite by suite
    document    docs/benchmarks.md of a run           plots       its SVG

`python -m bench [suite …]` runs them, and so does `latewood bench`; `make bench` the quick part, `make benchmarks` all.
To add a suite, write a module in `suites` with `run(session, folder) -> Results`, and name it in `suites.SUITES`.
"""
