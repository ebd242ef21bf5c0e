"""Every structural invariant of a shard's index, checked once when it is opened.

After this no byte of the payload can lead a kernel out of bounds: each entry's bytes lie where the previous end, every
width, count and mode is legal for its column, and the users' counts are consistent. What the payload's bytes say is
guarded by the blocks' checksums.
"""

from typing import Any

from numba import int64, uint64

from latewood.clock import EARLIEST_TS
from latewood.kernels import kernel
from latewood.stripes.addresses import load_u64
from latewood.stripes.encode import BOOL
from latewood.stripes.entries import (
    entry_exceptions,
    entry_has_nulls,
    entry_has_reference,
    entry_mode,
    entry_offset,
    entry_size_code,
    entry_width,
    first_entry,
    first_ts,
    latest_ingest,
    stripe_bytes,
    stripe_events,
    table_field,
    user_record,
    user_stripes,
)
from latewood.stripes.layout import (
    BLOCK_STRIPES,
    COLUMN_COUNT,
    DELTA,
    ENTRIES,
    EVENT_TS,
    LISTS,
    MODE_SHIFT,
    NEVER_CLEAN,
    NO_COLUMN,
    NULLS,
    OFFSET_BITS,
    PACKED,
    POSITIONS,
    RAW,
    SCALED,
    STRIPE_EVENTS,
    SUPERSEDED,
    USER_CHECK,
    USER_COUNT,
    USER_FIRST_BLOCK,
    USER_FIRST_EVENT,
    USER_FIRST_STRIPE,
)

# What is wrong, in words for messages.
PROBLEMS = (
    "",
    "the users' first events, stripes and blocks do not add up",
    "the users are not sorted by key",
    "the stripes' first times are not sorted",
    "a stripe's bytes do not begin where the ones before it end",
    "an entry is not possible for its column",
    "the stripes do not fill the payload",
    "whether a stripe has superseded events is not what its record says",
)
_ONLY_LISTS = LISTS << (MODE_SHIFT - OFFSET_BITS)  # the entry of items, above its offset
_COUNTS, _ORDER, _TIMES, _OFFSETS, _ENTRY, _END, _CLEAN = range(1, 8)


@kernel
def check_index(
    table: Any,
    kinds: Any,
    itemsizes: Any,
    lists: Any,
    nullable: Any,
    end: Any,
    totals: Any,
    has_nulls: Any,
    latest_until: Any,
    where: Any,
) -> Any:
    """Check a shard's index; `totals` are its events, stripes and blocks, `end` the payload's bytes.

    Args: lists, nullable: which columns hold the items of lists, and which may have nulls. How many bytes a stripe of items
        takes only the next entry tells; what is in it is checked when it is decoded.

    Returns: 0 or the number of a problem, in `where` the user, column and stripe, in `has_nulls` which columns
    have any, and in `latest_until` what `Shard` says.
    """
    users = table_field(table, USER_COUNT)
    for user in range(users + uint64(1)):
        where[0] = user
        problem = _check_user(table, uint64(user), users, totals)
        if problem:
            return problem
    columns, superseded, position = table_field(table, COLUMN_COUNT), table_field(table, SUPERSEDED), uint64(0)
    for user in range(users):
        u = uint64(user)
        where[0], stripes = user, user_stripes(table, u)
        if superseded == uint64(NO_COLUMN):
            for stripe in range(stripes):
                if not _is_clean(table, u, uint64(stripe)):
                    where[2] = stripe
                    return _CLEAN
        _note_latest(table, u, stripes, latest_until)
        for stripe in range(uint64(1), stripes):
            if first_ts(table, u, uint64(stripe)) < first_ts(table, u, uint64(stripe) - uint64(1)):
                where[2] = stripe
                return _TIMES
        for column in range(columns):
            c = uint64(column)
            where[1] = column
            entries = first_entry(table, u, c)
            for stripe in range(stripes):
                s = uint64(stripe)
                where[2] = stripe
                entry, events = load_u64(entries + s * uint64(8)), stripe_events(table, u, s)
                if entry_offset(entry) != position:
                    return _OFFSETS
                if lists[column]:
                    position = entry_offset(load_u64(entries + s * uint64(8) + uint64(8)))
                    if entry >> uint64(OFFSET_BITS) != uint64(_ONLY_LISTS):
                        return _ENTRY
                    if position < entry_offset(entry):
                        return _OFFSETS
                    continue
                if not is_possible(
                    entry, events, c == uint64(EVENT_TS), itemsizes[column], kinds[column], nullable[column]
                ):
                    return _ENTRY
                if c == superseded and _is_clean(table, u, s) != (entry_mode(entry) == uint64(NULLS)):
                    return _CLEAN
                has_nulls[column] |= entry_has_nulls(entry) != uint64(0)
                position += stripe_bytes(entry, events, itemsizes[column])
    last = load_u64(table_field(table, ENTRIES) + totals[1] * columns * uint64(8))  # where the last stripe ends
    return _END if position != end or last != end else 0


@kernel
def _note_latest(table: Any, user: Any, stripes: Any, latest_until: Any) -> None:
    first, latest = load_u64(user_record(table, user) + uint64(USER_FIRST_STRIPE)), int64(EARLIEST_TS)
    for stripe in range(stripes):
        latest = max(latest, latest_ingest(table, user, uint64(stripe)))
        latest_until[first + uint64(stripe)] = latest


@kernel
def _is_clean(table: Any, user: Any, stripe: Any) -> Any:
    """Whether a stripe's record says that none of its events is superseded."""
    return latest_ingest(table, user, stripe) != int64(NEVER_CLEAN)


@kernel
def _check_user(table: Any, user: Any, users: Any, totals: Any) -> Any:
    """A user against the one before; the record after the last holds the totals."""
    record = user_record(table, user)
    event, stripe = load_u64(record + uint64(USER_FIRST_EVENT)), load_u64(record + uint64(USER_FIRST_STRIPE))
    block = load_u64(record + uint64(USER_FIRST_BLOCK))
    if user == users and (event != totals[0] or stripe != totals[1] or block != totals[2]):
        return _COUNTS
    if user == uint64(0):
        return _COUNTS if event or stripe or block else 0
    before = user_record(table, user - uint64(1))
    events = event - load_u64(before + uint64(USER_FIRST_EVENT))
    stripes = stripe - load_u64(before + uint64(USER_FIRST_STRIPE))
    if events == uint64(0) or event > totals[0] or events > totals[0]:
        return _COUNTS
    if stripes != (events + uint64(STRIPE_EVENTS - 1)) // uint64(STRIPE_EVENTS):
        return _COUNTS
    blocks = (stripes + uint64(BLOCK_STRIPES - 1)) // uint64(BLOCK_STRIPES)
    if block - load_u64(before + uint64(USER_FIRST_BLOCK)) != blocks:
        return _COUNTS
    this_hash, last_hash = load_u64(record), load_u64(before)
    if user < users and this_hash <= last_hash:
        this_check = load_u64(record + uint64(USER_CHECK))
        if this_hash < last_hash or this_check <= load_u64(before + uint64(USER_CHECK)):
            return _ORDER
    return 0


@kernel
def is_possible(entry: Any, events: Any, is_times: Any, itemsize: Any, kind: Any, nullable: Any) -> Any:
    """Whether an entry is one that the writer could have written for a stripe of this column."""
    mode, width, exceptions = entry_mode(entry), entry_width(entry), entry_exceptions(entry)
    code, nulls, reference = entry_size_code(entry), entry_has_nulls(entry), entry_has_reference(entry)
    if entry >> uint64(63) or (nulls and not nullable) or is_times != (mode == uint64(DELTA)):
        return False
    if mode == uint64(NULLS):
        return nulls == uint64(1) and width + exceptions + code + reference == uint64(0)
    if mode == uint64(RAW):
        return width + exceptions + code + reference == uint64(0)
    if mode == uint64(POSITIONS):
        return kind == uint64(BOOL) and width + code + reference == uint64(0) and exceptions <= events
    if mode != uint64(PACKED) and mode != uint64(SCALED) and mode != uint64(DELTA):
        return False
    if kind == uint64(BOOL):
        return mode == uint64(PACKED) and width + reference <= uint64(1) and exceptions + code == uint64(0)
    if mode == uint64(SCALED) and not reference:
        return False
    bits = itemsize << uint64(3)
    if exceptions == uint64(0):
        return width <= bits and code == uint64(0)
    return width < bits and exceptions <= events and (uint64(1) << code) <= itemsize


@kernel
def find_user(table: Any, user_hash: Any, check: Any) -> Any:
    """The index of a user by its key, -1 where there is none.

    Hashes are spread evenly, so a search that guesses the place from the value needs two or three looks; should they
    not be, it halves.
    """
    low, high = uint64(0), table_field(table, USER_COUNT)
    looks = 0
    while low < high:
        middle = low + (high - low) // uint64(2)
        if looks < 4 and high - low > uint64(8):
            first, last = load_u64(user_record(table, low)), load_u64(user_record(table, high - uint64(1)))
            if user_hash <= first:
                middle = low
            elif user_hash >= last:
                middle = high - uint64(1)
            else:
                share = float(user_hash - first) / float(last - first)
                middle = min(low + uint64(int(share * float(high - low))), high - uint64(1))
        looks += 1
        record = user_record(table, middle)
        at = load_u64(record)
        if at == user_hash:
            at_check = load_u64(record + uint64(USER_CHECK))
            if at_check == check:
                return int64(middle)
            if at_check < check:
                low = middle + uint64(1)
            else:
                high = middle
        elif at < user_hash:
            low = middle + uint64(1)
        else:
            high = middle
    return int64(-1)


@kernel
def find_users(table: Any, hashes: Any, checks: Any, out: Any) -> Any:
    """`find_user` for many."""
    for i in range(len(hashes)):
        out[i] = find_user(table, uint64(hashes[i]), uint64(checks[i]))
