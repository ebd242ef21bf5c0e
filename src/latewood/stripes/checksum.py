"""XXH64 (seed 0) as a kernel: blocks are checked inside the decode call, without the GIL.

The algorithm is Yann Collet's, public domain in its specification; the tests compare it with the xxhash library.
"""

from typing import Any

from numba import uint64

from latewood.kernels import kernel
from latewood.stripes.addresses import load_u8, load_u32, load_u64

_P1, _P2, _P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_P4, _P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
_P1_P2, _MINUS_P1 = (_P1 + _P2) % (1 << 64), -_P1 % (1 << 64)


@kernel
def _rotate(x: Any, bits: Any) -> Any:
    return (x << bits) | (x >> (uint64(64) - bits))


@kernel
def _round(lane: Any, word: Any) -> Any:
    return _rotate(lane + word * uint64(_P2), uint64(31)) * uint64(_P1)


@kernel
def _join(h: Any, lane: Any) -> Any:
    return (h ^ _round(uint64(0), lane)) * uint64(_P1) + uint64(_P4)


@kernel
def xxh64(address: Any, size: Any) -> Any:
    """The hash of `size` bytes at an address; all uint64."""
    end = address + size
    if size >= uint64(32):
        a, b, c, d = uint64(_P1_P2), uint64(_P2), uint64(0), uint64(_MINUS_P1)
        while address + uint64(32) <= end:
            a = _round(a, load_u64(address))
            b = _round(b, load_u64(address + uint64(8)))
            c = _round(c, load_u64(address + uint64(16)))
            d = _round(d, load_u64(address + uint64(24)))
            address += uint64(32)
        h = _rotate(a, uint64(1)) + _rotate(b, uint64(7)) + _rotate(c, uint64(12)) + _rotate(d, uint64(18))
        h = _join(_join(_join(_join(h, a), b), c), d)
    else:
        h = uint64(_P5)
    h += size
    while address + uint64(8) <= end:
        h = _rotate(h ^ _round(uint64(0), load_u64(address)), uint64(27)) * uint64(_P1) + uint64(_P4)
        address += uint64(8)
    if address + uint64(4) <= end:
        h = _rotate(h ^ (load_u32(address) * uint64(_P1)), uint64(23)) * uint64(_P2) + uint64(_P3)
        address += uint64(4)
    while address < end:
        h = _rotate(h ^ (load_u8(address) * uint64(_P5)), uint64(11)) * uint64(_P1)
        address += uint64(1)
    h = (h ^ (h >> uint64(33))) * uint64(_P2)
    h = (h ^ (h >> uint64(29))) * uint64(_P3)
    return h ^ (h >> uint64(32))
