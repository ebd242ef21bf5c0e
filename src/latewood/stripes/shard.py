"""One opened shard file: mapped, and checked so that no byte of it can lead a kernel astray."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from latewood.errors import CorruptionError, PointerError
from latewood.storage import Storage
from latewood.stripes import validate, verify
from latewood.stripes.encode import kind_of
from latewood.stripes.footer import TRAILER_BYTES, Footer, check_header, padding, read_trailer
from latewood.stripes.layout import (
    BLOCK_STRIPES,
    CHECKSUMS,
    COLUMN_COUNT,
    ENTRIES,
    HEADER_BYTES,
    LATEST_UNTIL,
    NO_COLUMN,
    NULLABLE,
    PAD_BYTES,
    PAYLOAD,
    STRIPES,
    SUPERSEDED,
    TABLE_FIELDS,
    UNPACKERS,
    USER_COUNT,
    USERS,
    VERIFIED,
    StripeColumn,
    are_possible,
    superseded_index,
)
from latewood.stripes.unroll import ADDRESSES
from latewood.users import UserKeys, user_keys


class Shard:
    """One opened, validated shard file. Thread-safe: everything is read-only, but for `verified`.

    Attributes:
        table: (TABLE_FIELDS,) uint64, this shard's row of an address table; valid while the shard is alive.
        verified: (blocks * columns,) uint8, 1 once a block's checksum was found right, until that is forgotten.
        has_nulls: (columns,) bool, whether any event has a null there.
        latest_until: (stripes,) int64, the largest of the user's `latest_ingests` up to and including each stripe.
    """

    def __init__(self, key: str, data: NDArray[np.uint8], footer: Footer, footer_xxh3: int) -> None:
        """Use `Shard.open`."""
        self.key, self.footer, self.footer_xxh3 = key, footer, footer_xxh3
        self.epoch, self.generation, self.number = footer.epoch, footer.generation, footer.shard
        self.columns, self.latest_ingest = footer.columns, footer.latest_ingest
        self.size_bytes = len(data)
        self.user_count, self.event_count, self.stripe_count, self.block_count = (
            footer.counts[name] for name in ("users", "events", "stripes", "blocks")
        )
        self._data = data
        self._users = self._words("users").reshape(-1, 5)
        self._stripes = self._words("stripes").reshape(-1, 3)
        self.verified = np.zeros(self.block_count * len(self.columns), np.uint8)
        self.has_nulls = np.zeros(len(self.columns), np.bool_)
        self.latest_until = np.zeros(self.stripe_count, np.int64)
        self.table = np.zeros(TABLE_FIELDS, np.uint64)
        base = data.ctypes.data
        self.table[PAYLOAD] = base + HEADER_BYTES
        for field, name in ((USERS, "users"), (STRIPES, "stripes"), (ENTRIES, "entries"), (CHECKSUMS, "checksums")):
            self.table[field] = base + footer.sections[name].offset
        self.table[VERIFIED], self.table[UNPACKERS] = self.verified.ctypes.data, ADDRESSES.ctypes.data
        self.table[LATEST_UNTIL] = self.latest_until.ctypes.data
        self.table[USER_COUNT], self.table[COLUMN_COUNT] = self.user_count, len(self.columns)
        superseded = superseded_index(self.columns)
        self.table[SUPERSEDED] = NO_COLUMN if superseded is None else superseded
        self._user_ids: pa.Array | None = None

    @classmethod
    def open(
        cls,
        storage: Storage,
        key: str,
        *,
        columns: Sequence[StripeColumn] | None = None,
        epoch: bytes | None = None,
        generation: int | None = None,
        number: int | None = None,
        footer_xxh3: int | None = None,
    ) -> "Shard":
        """Map a file and check its index, and that it is the file expected.

        Of the columns expected the last, superseded_at, may be missing: older files do not have it.

        Raises:
            CorruptionError: names the file and what is wrong.
            SchemaError: a format version or a column type that this version cannot read.
            FileNotFoundError: there is no such file.
        """
        data = storage.map(key)
        footer, footer_size, digest = _read_footer(data, key)
        _check_layout(data, footer, footer_size, key)
        expected = {"epoch": epoch, "generation": generation, "shard": number}
        for name, wanted in expected.items():
            if wanted is not None and getattr(footer, name) != wanted:
                raise CorruptionError(f"{key}: is of {name} {getattr(footer, name)!r}, not {wanted!r}")
        if columns is not None and footer.columns not in (tuple(columns), tuple(columns)[: superseded_index(columns)]):
            raise CorruptionError(f"{key}: its columns are not those of its generation")
        if footer_xxh3 is not None and digest != footer_xxh3:
            raise CorruptionError(f"{key}: another file than the one in the manifest")
        shard = cls(key, data, footer, digest)
        shard._check_index()
        return shard

    @property
    def user_ids(self) -> pa.Array:
        """The user ids in key order, int64 or string."""
        if self._user_ids is None:
            self._user_ids = self._read_user_ids()
        return self._user_ids

    @property
    def keys(self) -> UserKeys:
        """The user keys, sorted."""
        return UserKeys(self._users[:-1, 0], self._users[:-1, 1])

    @property
    def first_event(self) -> NDArray[np.int64]:
        """(users + 1,): events before each user's; the differences are event counts."""
        return self._users[:, 2].view(np.int64)

    @property
    def first_stripe(self) -> NDArray[np.int64]:
        """(users + 1,): stripes before each user's."""
        return self._users[:, 3].view(np.int64)

    @property
    def first_ts(self) -> NDArray[np.int64]:
        """(stripes,): event_ts of each stripe's first event."""
        return self._stripes[:, 0].view(np.int64)

    @property
    def latest_ingests(self) -> NDArray[np.int64]:
        """(stripes,): the largest ingest_ts in each stripe, NEVER_CLEAN where one of its events is superseded."""
        return self._stripes[:, 1].view(np.int64)

    @property
    def identity_sums(self) -> NDArray[np.uint64]:
        """(stripes,): the sum of the identities of the user's events up to and including each stripe."""
        return self._stripes[:, 2]

    def locate(self, keys: UserKeys) -> NDArray[np.int64]:
        """The index of each user, -1 where unknown."""
        out = np.empty(len(keys.hash), np.int64)
        hashes, checks = np.ascontiguousarray(keys.hash), np.ascontiguousarray(keys.check)
        validate.find_users(np.uint64(self.table.ctypes.data), hashes, checks, out)
        return out

    def verify(self, users: NDArray[np.int64] | None = None) -> None:
        """Read everything of some users or all, and compare it with its checksums and with what the index says of it.

        Raises: CorruptionError: names the file, user, column and block.
        """
        if users is None:
            users = np.arange(self.user_count)
            found = user_keys(self.user_ids)
            if (found.hash != self.keys.hash).any() or (found.check != self.keys.check).any():
                raise CorruptionError(f"{self.key}: the users' keys are not those of their ids")
        elif len(users) and not 0 <= users.min() <= users.max() < self.user_count:
            raise IndexError("a user that is not there")
        where, work = np.zeros(3, np.int64), np.empty(verify.WORK_WORDS, np.uint64)
        problem = verify.verify_users(
            np.uint64(self.table.ctypes.data), np.ascontiguousarray(users, np.int64), *self._described(), work, where
        )
        user, column, stripe = where.tolist()
        if problem == verify.DAMAGED:
            raise self.damage(user, column, stripe)
        if problem:
            what = verify.PROBLEMS[problem]
            raise CorruptionError(f"{self.key}: user {self.user_ids[user].as_py()!r}, stripe {stripe}: {what}")

    def damage(self, user: int, column: int, stripe: int) -> CorruptionError:
        """The error for a block whose checksum differs."""
        return CorruptionError(
            f"{self.key}: user {self.user_ids[user].as_py()!r}, column {self.columns[column].name!r}, "
            f"block {stripe // BLOCK_STRIPES}: the bytes are not those written"
        )

    def unfit(self, user: int, column: int, stripe: int) -> CorruptionError:
        """The error for lists whose lengths and items do not go together."""
        return CorruptionError(
            f"{self.key}: user {self.user_ids[user].as_py()!r}, column {self.columns[column].name!r}, "
            f"stripe {stripe}: the items are not as the lengths say"
        )

    def _bytes(self, name: str) -> NDArray[np.uint8]:
        section = self.footer.sections[name]
        return self._data[section.offset : section.offset + section.size_bytes]

    def _words(self, name: str) -> NDArray[np.uint64]:
        return self._bytes(name).view(np.uint64)

    def _read_user_ids(self) -> pa.Array:
        if self.footer.user_type == "int64":
            return pa.Array.from_buffers(pa.int64(), self.user_count, [None, pa.py_buffer(self._bytes("user_ids"))])
        buffers = [None, *(pa.py_buffer(self._bytes(name)) for name in ("user_offsets", "user_bytes"))]
        text = pa.Array.from_buffers(pa.large_string(), self.user_count, buffers)
        try:
            text.validate(full=True)
            return text.cast(pa.string())
        except pa.ArrowInvalid as error:
            raise CorruptionError(f"{self.key}: the user ids are not text: {error}") from None

    def _described(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.bool_]]:
        """Of each column, for kernels: the kind of its values and their bytes, and whether they are the items of lists."""
        return (
            np.array([kind_of(column.dtype) for column in self.columns], np.uint64),
            np.array([column.dtype.itemsize for column in self.columns], np.uint64),
            np.array([column.role == "items" for column in self.columns], np.bool_),
        )

    def _check_index(self) -> None:
        where, totals = np.zeros(3, np.int64), [self.footer.counts[n] for n in ("events", "stripes", "blocks")]
        problem = validate.check_index(
            np.uint64(self.table.ctypes.data),
            *self._described(), np.array([c.role in NULLABLE for c in self.columns]),
            np.uint64(self.footer.counts["payload_bytes"]), np.array(totals, np.uint64), self.has_nulls,
            self.latest_until, where,
        )  # fmt: skip
        if problem:
            user, column, stripe = where.tolist()
            name = self.columns[min(column, len(self.columns) - 1)].name
            place = f"user number {user}, column {name!r}, stripe {stripe}"
            raise CorruptionError(f"{self.key}: {validate.PROBLEMS[problem]} ({place})")
        if self.footer.user_type == "string":
            offsets, text = self._bytes("user_offsets").view(np.int64), self._bytes("user_bytes")
            if offsets[0] != 0 or (np.diff(offsets) < 0).any() or offsets[-1] != len(text):
                raise CorruptionError(f"{self.key}: the user ids' offsets do not fit their bytes")


class Tables:
    """The address tables of a generation's shards, by shard number: what kernels are given.

    Attributes:
        rows: (shards, TABLE_FIELDS) uint64; zeros where the shard is not open yet.
        shards: the opened ones, kept alive here.
        columns: of the shards, all the same; none while no shard is open.
        has_nulls: (columns,) bool, whether any event of the opened shards has a null there.
    """

    def __init__(self, count: int) -> None:
        self.rows = np.zeros((count, TABLE_FIELDS), np.uint64)
        self.shards: list[Shard | None] = [None] * count
        self.columns: tuple[StripeColumn, ...] = ()
        self.has_nulls = np.zeros(0, np.bool_)

    def put(self, number: int, shard: Shard) -> None:
        """Add an opened shard. Raises: CorruptionError: it has other columns than those before."""
        if self.columns and self.columns != shard.columns:
            raise CorruptionError(f"{shard.key}: its columns are not those of the other shards of its generation")
        self.shards[number] = shard
        self.has_nulls = shard.has_nulls | self.has_nulls if self.columns else shard.has_nulls
        self.rows[number] = shard.table
        self.columns = shard.columns

    def damage(self, shard: int, user: int, column: int, stripe: int) -> CorruptionError:
        """The error for a block whose checksum differs."""
        return self._opened(shard).damage(user, column, stripe)

    def unfit(self, shard: int, user: int, column: int, stripe: int) -> CorruptionError:
        """The error for lists whose lengths and items do not go together."""
        return self._opened(shard).unfit(user, column, stripe)

    def _opened(self, number: int) -> Shard:
        shard = self.shards[number]
        if shard is None:
            raise PointerError(f"shard {number} is not open")
        return shard


def _read_footer(data: NDArray[np.uint8], key: str) -> tuple[Footer, int, int]:
    """Header, trailer and footer, in this order, so that a newer version is named as such; its bytes and xxh3_64."""
    if len(data) < HEADER_BYTES + PAD_BYTES + TRAILER_BYTES:
        raise CorruptionError(f"{key}: {len(data)} bytes are too few for a shard file")
    check_header(data[:HEADER_BYTES].tobytes(), key)
    size, digest = read_trailer(data[-TRAILER_BYTES:].tobytes(), key)
    if size > len(data) - HEADER_BYTES - TRAILER_BYTES:
        raise CorruptionError(f"{key}: the trailer is damaged")
    raw = data[len(data) - TRAILER_BYTES - size : len(data) - TRAILER_BYTES].tobytes()
    if xxhash.xxh3_64_intdigest(raw) != digest:
        raise CorruptionError(f"{key}: the footer is damaged")
    footer = Footer.from_bytes(raw, key)
    if not are_possible(footer.columns):
        raise CorruptionError(f"{key}: the footer names columns that no shard has together")
    return footer, size, digest


def _check_layout(data: NDArray[np.uint8], footer: Footer, footer_size: int, key: str) -> None:
    """The sections lie where the counts say, one after the other, with zeros between; their contents are as written."""
    counts, columns = footer.counts, len(footer.columns)
    sizes: dict[str, int | None] = {
        "users": (counts["users"] + 1) * 40,
        "stripes": counts["stripes"] * 24,
        "entries": (counts["stripes"] * columns + 1) * 8,
        "checksums": counts["blocks"] * columns * 8,
    }
    if footer.user_type == "int64":
        sizes["user_ids"] = counts["users"] * 8
    else:
        sizes |= {"user_offsets": (counts["users"] + 1) * 8, "user_bytes": None}
    if list(footer.sections) != list(sizes) or footer.user_type not in ("int64", "string"):
        raise CorruptionError(f"{key}: the footer names other sections than its counts ask for")
    position = HEADER_BYTES + counts["payload_bytes"]
    gap = PAD_BYTES
    for name, size in sizes.items():
        section = footer.sections[name]
        start = position + gap + padding(position + gap)
        if section.offset != start or (size is not None and section.size_bytes != size):
            raise CorruptionError(f"{key}: section {name!r} does not lie where it should")
        _check_zeros(data, position, start, key)
        position, gap = start + section.size_bytes, 0
        if position > len(data) or xxhash.xxh3_64_intdigest(data[start:position].data) != section.xxh3:
            raise CorruptionError(f"{key}: section {name!r} is damaged")
    end = len(data) - TRAILER_BYTES - footer_size
    if end != position + padding(position):
        raise CorruptionError(f"{key}: bytes between the index and the footer")
    _check_zeros(data, position, end, key)


def _check_zeros(data: NDArray[np.uint8], start: int, stop: int, key: str) -> None:
    if data[start:stop].any():
        raise CorruptionError(f"{key}: bytes {start} to {stop} are not zero")
