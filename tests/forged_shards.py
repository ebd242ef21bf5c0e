"""Shard files taken apart, changed, and put together again with every checksum right: an adversary's, or a bug's.

What hashes catch is easy to test. Behind them stands the validation of what they cover, and to reach it a forger has to
mend the hashes of blocks, sections and footer after whatever he has done.
"""

import json
import struct
from typing import Any

import numpy as np
import xxhash

from latewood.stripes.footer import trailer_bytes

HEADER, PAD, ALIGNMENT, TRAILER = 64, 1024, 64, 24
OFFSET = (1 << 40) - 1
STRIPES_PER_BLOCK = 16


class ForgedShard:
    """The parts of a shard file, to be changed at will.

    Shapes: users (users + 1, 5), stripes (stripes, 3), entries (stripes * columns + 1,), checksums (blocks * columns,),
    all uint64; payload (bytes,) uint8. `ids`: the sections of the user ids, by name, as bytes. `footer`: the document.
    """

    def __init__(self, data: bytes) -> None:
        size = struct.unpack("<Q", data[-24:-16])[0]
        self.header, self.footer = data[:HEADER], json.loads(data[-TRAILER - size : -TRAILER])
        self.payload = np.frombuffer(data[HEADER : HEADER + self.footer["payload_bytes"]], np.uint8).copy()
        parts = {name: data[start : start + length] for name, (start, length, _) in self.footer["sections"].items()}
        self.users, self.stripes = (_words(parts.pop(name), width) for name, width in (("users", 5), ("stripes", 3)))
        self.entries, self.checksums = (_words(parts.pop(name)).reshape(-1) for name in ("entries", "checksums"))
        self.ids: dict[str, bytes] = parts

    @property
    def columns(self) -> list[dict[str, Any]]:
        return self.footer["columns"]

    def entry(self, user: int, column: int, stripe: int) -> int:
        """The index of an entry."""
        first, stop = self.users[user : user + 2, 3].tolist()
        return first * len(self.columns) + column * (stop - first) + stripe

    def replace_payload(self, parts: list[bytes], entries: list[int]) -> None:
        """Lay out new bytes of all stripes, in the order of the entries, which need no offsets."""
        starts = np.cumsum([0, *map(len, parts)]).tolist()
        self.payload = np.frombuffer(b"".join(parts), np.uint8).copy()
        self.entries = np.array([e | s for e, s in zip([*entries, 0], starts, strict=True)], np.uint64)
        self.footer["payload_bytes"] = len(self.payload)

    def seal(self, *, aligned: bool = False, mend_blocks: bool = True) -> bytes:
        """The file, with all hashes right, as far as the index says what they cover.

        Args: aligned: make its size a multiple of 64, with spaces in the footer.
        """
        if mend_blocks:
            self._mend_blocks()
        parts = [self.header, self.payload.tobytes(), bytes(PAD)]
        position, sections = sum(map(len, parts)), {}
        index = {"users": self.users, "stripes": self.stripes, "entries": self.entries, "checksums": self.checksums}
        for name, data in {**{name: words.tobytes() for name, words in index.items()}, **self.ids}.items():
            parts += [bytes(-position % ALIGNMENT), data]
            position += -position % ALIGNMENT
            sections[name] = [position, len(data), f"{xxhash.xxh3_64_intdigest(data):016x}"]
            position += len(data)
        parts.append(bytes(-position % ALIGNMENT))
        footer = json.dumps(self.footer | {"sections": sections}, separators=(",", ":")).encode()
        if aligned:
            footer += b" " * (-(len(footer) + TRAILER) % ALIGNMENT)
        return b"".join([*parts, footer, trailer_bytes(footer)])

    def _mend_blocks(self) -> None:
        starts, columns = (self.entries & np.uint64(OFFSET)).tolist(), len(self.columns)
        for (_, _, _, stripe, block), (_, _, _, end, _) in zip(
            self.users[:-1].tolist(), self.users[1:].tolist(), strict=True
        ):
            stripes = min(end - stripe, len(self.stripes)) if end >= stripe else 0
            blocks = -(-stripes // STRIPES_PER_BLOCK)
            for column in range(columns):
                for b in range(blocks):
                    first = stripe * columns + column * stripes + b * STRIPES_PER_BLOCK
                    last = min(first + STRIPES_PER_BLOCK, stripe * columns + (column + 1) * stripes)
                    place = block * columns + column * blocks + b
                    if last < len(starts) and place < len(self.checksums):
                        data = self.payload[starts[first] : starts[last]].tobytes()
                        self.checksums[place] = xxhash.xxh64_intdigest(data)


def _words(data: bytes, width: int = 1) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.frombuffer(data, np.uint64).copy().reshape(-1, width)
