"""Moments that tests share. Units: µs since epoch, UTC."""

START = 1_700_000_000_000_000  # 2023-11-14T22:13:20Z: where tests' clocks start
