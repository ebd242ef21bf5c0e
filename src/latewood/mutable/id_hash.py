"""XXH3, 128 bits, seed 0, as a kernel for what is short: thousands of ids are hashed without a Python object for each.

The algorithm is Yann Collet's, as the xxhash library has it: the tests compare them, and what is longer than `SHORT` is
left to the library. Each range of lengths has a way of its own.
"""

import numpy as np
import xxhash
from numba import boolean, int64, types, uint8, uint64
from numpy.typing import NDArray

from latewood.kernels import kernel, typed_kernel

SHORT = 128  # bytes
_SECRET = np.frombuffer(
    bytes.fromhex(
        "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221b8084674f743248e"
        "e03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8a8fa763fe39c343ff9dcbbc7c70b4f1d8a"
        "51e04bcdb45931c89f7ec9d9787364"
    ),
    "<u8",
)  # the first words of the library's


def _flip(first: int) -> int:
    """Two words of the secret in one."""
    return int(_SECRET[first] ^ _SECRET[first + 1])


_LOW = 2**32 - 1
_P32_2 = 0x85EBCA77
_P1, _P2, _P3, _P4 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63
_MX1, _MX2 = 0x165667919E3779F9, 0x9FB21C651E98DF25
_FLIP_3_LOW, _FLIP_3_HIGH = (int(word & _LOW) ^ int(word >> np.uint64(32)) for word in _SECRET[:2])
_FLIP_8, _FLIP_16_LOW, _FLIP_16_HIGH = _flip(2), _flip(4), _flip(6)
_U64S = types.Array(uint64, 2, "C")
_IN_U8S, _IN_I64S = types.Array(uint8, 1, "C", readonly=True), types.Array(int64, 1, "C", readonly=True)


def hash_pieces(tag: bytes, offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The hash of each piece of some bytes, behind a tag.

    Args: tag: one byte or none. offsets: piece i is data[offsets[i] : offsets[i + 1]].
    Shapes: (n + 1,) → (n, 2): high half, low half.
    Raises: ValueError: offsets that fall, or lie outside the data.
    """
    if offsets[0] < 0 or offsets[-1] > len(data) or (offsets[1:] < offsets[:-1]).any():
        raise ValueError("the pieces do not lie one behind the other in the data")
    hashes, long = np.empty((len(offsets) - 1, 2), np.uint64), np.zeros(len(offsets) - 1, np.bool_)
    _hash_short(np.frombuffer(tag, np.uint8), offsets, data, hashes, long)
    for piece in np.flatnonzero(long).tolist():
        digest = xxhash.xxh3_128_digest(tag + data[offsets[piece] : offsets[piece + 1]].tobytes())
        hashes[piece] = np.frombuffer(digest, ">u8")
    return hashes


@kernel
def _word(words, at):  # type: ignore[no-untyped-def]
    """The 8 bytes from a byte on."""
    place, bits = at >> 3, uint64(at & 7) << uint64(3)
    return (words[place] >> bits) | ((words[place + 1] << uint64(1)) << (uint64(63) - bits))


@kernel
def _byte(words, at):  # type: ignore[no-untyped-def]
    return _word(words, at) & uint64(255)


@kernel
def _half(words, at):  # type: ignore[no-untyped-def]
    return _word(words, at) & uint64(_LOW)


@kernel
def _swapped(word):  # type: ignore[no-untyped-def]
    """With its bytes in the other order."""
    swapped = uint64(0)
    for i in range(8):
        swapped = (swapped << uint64(8)) | ((word >> uint64(8 * i)) & uint64(255))
    return swapped


@kernel
def _high(a, b):  # type: ignore[no-untyped-def]
    """The upper half of a product of 128 bits; the lower one is a * b."""
    a_low, a_high, b_low, b_high = a & uint64(_LOW), a >> uint64(32), b & uint64(_LOW), b >> uint64(32)
    cross = ((a_low * b_low) >> uint64(32)) + (a_high * b_low & uint64(_LOW)) + a_low * b_high
    return (a_high * b_low >> uint64(32)) + (cross >> uint64(32)) + a_high * b_high


@kernel
def _mixed_64(h):  # type: ignore[no-untyped-def]
    h = (h ^ (h >> uint64(33))) * uint64(_P2)
    h = (h ^ (h >> uint64(29))) * uint64(_P3)
    return h ^ (h >> uint64(32))


@kernel
def _mixed(h):  # type: ignore[no-untyped-def]
    h = (h ^ (h >> uint64(37))) * uint64(_MX1)
    return h ^ (h >> uint64(32))


@kernel
def _up_to_3(words, size):  # type: ignore[no-untyped-def]
    first, middle, last = _byte(words, 0), _byte(words, size >> 1), _byte(words, size - 1)
    low = (first << uint64(16)) | (middle << uint64(24)) | last | (uint64(size) << uint64(8))
    swapped = _swapped(low) >> uint64(32)
    high = ((swapped << uint64(13)) | (swapped >> uint64(19))) & uint64(_LOW)
    return _mixed_64(high ^ uint64(_FLIP_3_HIGH)), _mixed_64(low ^ uint64(_FLIP_3_LOW))


@kernel
def _up_to_8(words, size):  # type: ignore[no-untyped-def]
    keyed = (_half(words, 0) + (_half(words, size - 4) << uint64(32))) ^ uint64(_FLIP_8)
    by = uint64(_P1) + (uint64(size) << uint64(2))
    low, high = keyed * by, _high(keyed, by)
    high += low << uint64(1)
    low ^= high >> uint64(3)
    low = (low ^ (low >> uint64(35))) * uint64(_MX2)
    return _mixed(high), low ^ (low >> uint64(28))


@kernel
def _up_to_16(words, size):  # type: ignore[no-untyped-def]
    first, last = _word(words, 0), _word(words, size - 8)
    keyed = first ^ last ^ uint64(_FLIP_16_LOW)
    low, high = keyed * uint64(_P1), _high(keyed, uint64(_P1))
    low += uint64(size - 1) << uint64(54)
    last ^= uint64(_FLIP_16_HIGH)
    high += last + (last & uint64(_LOW)) * uint64(_P32_2 - 1)
    low ^= _swapped(high)
    high = _high(low, uint64(_P2)) + high * uint64(_P2)
    return _mixed(high), _mixed(low * uint64(_P2))


@kernel
def _folded(a, b, secret):  # type: ignore[no-untyped-def]
    """16 bytes in 8."""
    a, b = a ^ _SECRET[secret], b ^ _SECRET[secret + 1]
    return (a * b) ^ _high(a, b)


@kernel
def _up_to_128(words, size):  # type: ignore[no-untyped-def]
    low, high = uint64(size) * uint64(_P1), uint64(0)
    for pair in range((size - 1) // 32, -1, -1):  # from the middle out
        front, back = 16 * pair, size - 16 * (pair + 1)
        a, b, c, d = _word(words, front), _word(words, front + 8), _word(words, back), _word(words, back + 8)
        low = (low + _folded(a, b, 4 * pair)) ^ (c + d)
        high = (high + _folded(c, d, 4 * pair + 2)) ^ (a + b)
    total = low * uint64(_P1) + high * uint64(_P4) + uint64(size) * uint64(_P2)
    return uint64(0) - _mixed(total), _mixed(low + high)


@typed_kernel(types.void(_IN_U8S, _IN_I64S, _IN_U8S, _U64S, types.Array(boolean, 1, "C")))
def _hash_short(tag, offsets, data, hashes, long):  # type: ignore[no-untyped-def]
    """See `hash_pieces`; pieces that are longer are noted instead. A piece of nothing, without a tag, is not hashed."""
    words = np.zeros(SHORT // 8 + 2, np.uint64)  # room to read one, and what comes behind, from wherever a piece ends
    text = words.view(np.uint8)
    tagged = len(tag)
    text[:tagged] = tag
    for piece in range(len(hashes)):
        start, stop = offsets[piece], offsets[piece + 1]
        size = tagged + stop - start
        long[piece] = size > SHORT or size == 0
        if long[piece]:
            continue
        for i in range(stop - start):
            text[tagged + i] = data[start + i]
        if size <= 3:
            high, low = _up_to_3(words, size)
        elif size <= 8:
            high, low = _up_to_8(words, size)
        elif size <= 16:
            high, low = _up_to_16(words, size)
        else:
            high, low = _up_to_128(words, size)
        hashes[piece, 0], hashes[piece, 1] = high, low
