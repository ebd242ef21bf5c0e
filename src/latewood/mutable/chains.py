"""The kernels of the arena: hash tables and per-user chains over its columns.

A chain links a user's events from the newest back, as a list threaded through the column `previous`; `latest` is the
largest ingest time from an event back to the chain's end, so that a walk stops where nothing later is wanted. Hash
tables are open-addressed, a power of two long and at most half full; an entry is a row or user number plus one, 0 is
empty.
"""

from numba import boolean, int32, int64, types, uint64

from latewood.kernels import typed_kernel

_I64 = types.Array(int64, 1, "C")
_I32 = types.Array(int32, 1, "C")
_U64 = types.Array(uint64, 1, "C")
_IN_I64 = types.Array(int64, 1, "C", readonly=True)
_IN_I32 = types.Array(int32, 1, "C", readonly=True)
_IN_U64 = types.Array(uint64, 1, "C", readonly=True)
_IN_BOOL = types.Array(boolean, 1, "C", readonly=True)
_AHEAD = 64  # rows that are looked for at once


@typed_kernel(int64(_IN_U64, _IN_U64, _I64, _U64, _U64, int64, _I64, _I64))
def assign_users(hashes, checks, table, user_hash, user_check, count, users, new_rows):  # type: ignore[no-untyped-def]
    """Each row's user number, new ones given in order of appearance. Returns the number of users thereafter.

    `new_rows[k]` is the row where the k-th new user first appears.
    """
    mask = uint64(len(table) - 1)
    before = count
    for row in range(len(hashes)):
        place = hashes[row] & mask
        while True:
            entry = table[place]
            if entry == 0:
                user_hash[count] = hashes[row]
                user_check[count] = checks[row]
                new_rows[count - before] = row
                count += 1
                table[place] = count
                users[row] = count - 1
                break
            if user_hash[entry - 1] == hashes[row] and user_check[entry - 1] == checks[row]:
                users[row] = entry - 1
                break
            place = (place + uint64(1)) & mask
    return count


@typed_kernel(types.void(_I64, _U64, int64))
def rehash_users(table, user_hash, count):  # type: ignore[no-untyped-def]
    """Fill an empty table with the users known."""
    mask = uint64(len(table) - 1)
    for user in range(count):
        place = user_hash[user] & mask
        while table[place] != 0:
            place = (place + uint64(1)) & mask
        table[place] = user + 1


@typed_kernel(int64(uint64, uint64, _I64, _U64, _U64))
def find_user(hashed, check, table, user_hash, user_check):  # type: ignore[no-untyped-def]
    """A user's number, -1 where unknown."""
    mask = uint64(len(table) - 1)
    place = hashed & mask
    while table[place] != 0:
        entry = table[place] - 1
        if user_hash[entry] == hashed and user_check[entry] == check:
            return entry
        place = (place + uint64(1)) & mask
    return int64(-1)


@typed_kernel(types.void(_IN_U64, _IN_U64, _I64, _U64, _U64, _I64))
def find_users(hashes, checks, table, user_hash, user_check, users):  # type: ignore[no-untyped-def]
    """Each row's user number, -1 where unknown."""
    for row in range(len(hashes)):
        users[row] = find_user(hashes[row], checks[row], table, user_hash, user_check)


@typed_kernel(types.void(_IN_I64, _IN_BOOL, _I64, _I64))
def count_earlier(users, chosen, seen, counts):  # type: ignore[no-untyped-def]
    """How many chosen rows of the same user come before each chosen row. `seen` is all zero before and after."""
    for row in range(len(users)):
        if chosen[row]:
            counts[row] = seen[users[row]]
            seen[users[row]] += 1
    for row in range(len(users)):
        seen[users[row]] = 0


@typed_kernel(uint64(int64, int64, int64))
def tie_hash(user, event_ts, ingest_ts):  # type: ignore[no-untyped-def]
    h = uint64(user) * uint64(0x9E3779B97F4A7C15) + uint64(event_ts)
    h = (h ^ (h >> uint64(32))) * uint64(0xD6E8FEB86659FD93) + uint64(ingest_ts)
    h = (h ^ (h >> uint64(29))) * uint64(0x94D049BB133111EB)
    return h ^ (h >> uint64(32))


@typed_kernel(types.void(int64, int64, _I64, _I64, _I64, _I64, _I64))
def link_rows(start, stop, users, ingest_ts, previous, latest, head):  # type: ignore[no-untyped-def]
    """Thread rows [start, stop) into their users' chains."""
    for row in range(start, stop):
        user = users[row]
        before = head[user]
        previous[row] = before
        latest[row] = ingest_ts[row]
        if before >= 0 and latest[before] > latest[row]:
            latest[row] = latest[before]
        head[user] = row


@typed_kernel(int64(int64, _I64, _I64, _I64, _I64))
def _tied_place(row, ties, users, event_ts, ingest_ts):  # type: ignore[no-untyped-def]
    """The place of a row's tied group in the table, or of the group that it is the first of."""
    mask = uint64(len(ties) - 1)
    user, time, learned = users[row], event_ts[row], ingest_ts[row]
    place = tie_hash(user, time, learned) & mask
    while ties[place] != 0:
        other = ties[place] - 1
        if users[other] == user and event_ts[other] == time and ingest_ts[other] == learned:
            break
        place = (place + uint64(1)) & mask
    return int64(place)


@typed_kernel(int64(int64, int64, _I64, _I64, _I64, _I64))
def _look_ahead(start, stop, ties, users, event_ts, ingest_ts):  # type: ignore[no-untyped-def]
    """Look where rows [start, stop) will go: a table of millions is in no cache, and so it is asked for all at once.

    Returns: nothing that means anything, lest it be left out.
    """
    mask = uint64(len(ties) - 1)
    looked = int64(0)
    for row in range(start, stop):
        entry = ties[tie_hash(users[row], event_ts[row], ingest_ts[row]) & mask]
        looked ^= users[max(entry - 1, 0)]
    return looked


@typed_kernel(int64(int64, int64, _I64, _I64, _I64, _I64))
def enter_ties(start, stop, ties, users, event_ts, ingest_ts):  # type: ignore[no-untyped-def]
    """Enter rows [start, stop), the next ones, in the table of tied groups: it has each group's newest row.

    Returns: see `_look_ahead`.
    """
    looked = int64(0)
    for first in range(start, stop, _AHEAD):
        last = min(first + _AHEAD, stop)
        looked ^= _look_ahead(first, last, ties, users, event_ts, ingest_ts)
        for row in range(first, last):
            ties[_tied_place(row, ties, users, event_ts, ingest_ts)] = row + 1
    return looked


@typed_kernel(int64(int64, int64, _I64, _I64, _I64, _I64, _I32))
def place_ties(start, stop, ties, users, event_ts, ingest_ts, ordinal):  # type: ignore[no-untyped-def]
    """Like `enter_ties`; and give each row its place by arrival among equal (user, event_ts, ingest_ts) (R1)."""
    looked = int64(0)
    for first in range(start, stop, _AHEAD):
        last = min(first + _AHEAD, stop)
        looked ^= _look_ahead(first, last, ties, users, event_ts, ingest_ts)
        for row in range(first, last):
            place = _tied_place(row, ties, users, event_ts, ingest_ts)
            ordinal[row] = ordinal[ties[place] - 1] + 1 if ties[place] != 0 else 0
            ties[place] = row + 1
    return looked


@typed_kernel(boolean(int64, int64, _I64, _I64, _I32))
def _before(a, b, event_ts, ingest_ts, ordinal):  # type: ignore[no-untyped-def]
    if event_ts[a] != event_ts[b]:
        return event_ts[a] < event_ts[b]
    if ingest_ts[a] != ingest_ts[b]:
        return ingest_ts[a] < ingest_ts[b]
    return ordinal[a] < ordinal[b]


@typed_kernel(types.void(_I64, _I64, int64, int64, _I64, _I64, _I32))
def _sort_rows(rows, spare, start, stop, event_ts, ingest_ts, ordinal):  # type: ignore[no-untyped-def]
    """Sort rows[start:stop] by the total order: insertion-sorted runs, merged; fast on what is nearly sorted."""
    run = 16
    for low in range(start, stop, run):
        for at in range(low + 1, min(low + run, stop)):
            row = rows[at]
            hole = at
            while hole > low and _before(row, rows[hole - 1], event_ts, ingest_ts, ordinal):
                rows[hole] = rows[hole - 1]
                hole -= 1
            rows[hole] = row
    while run < stop - start:
        for low in range(start, stop - run, 2 * run):
            middle, high = low + run, min(low + 2 * run, stop)
            if not _before(rows[middle], rows[middle - 1], event_ts, ingest_ts, ordinal):
                continue
            spare[low:middle] = rows[low:middle]
            left, right, at = low, middle, low
            while left < middle:
                if right < high and _before(rows[right], spare[left], event_ts, ingest_ts, ordinal):
                    rows[at] = rows[right]
                    right += 1
                else:
                    rows[at] = spare[left]
                    left += 1
                at += 1
        run *= 2


@typed_kernel(
    int64(
        _IN_U64, _IN_U64, _I64, _U64, _U64, _IN_I64, _IN_I64, _IN_I64, _IN_I64, _IN_I32, int64, _I64, _I64, _I64, _I64,
        _I64, _I32, _I64, _I64, _I64,
    ),
)  # fmt: skip
def gather(  # type: ignore[no-untyped-def]
    hashes, checks, table, user_hash, user_check, end_ts, min_ingest, cutoff, tie_ingest, tie_ordinal, limit,
    head, previous, latest, event_ts, ingest_ts, ordinal, rows, spare, offsets,
):  # fmt: skip
    """Each request's rows in the total order: what sorts before its end, ingested in [min_ingest, cutoff).

    Rows at or past `limit` are not committed yet and stay unseen. Returns the number of rows; where that is more than
    `rows` holds, call again with more room.
    """
    count = 0
    for request in range(len(hashes)):
        offsets[request] = count
        start = count
        end, earliest, latest_allowed = end_ts[request], min_ingest[request], cutoff[request]
        user = find_user(hashes[request], checks[request], table, user_hash, user_check)
        row = head[user] if user >= 0 else int64(-1)
        while row >= 0 and latest[row] >= earliest:
            ingest = ingest_ts[row]
            if row < limit and ingest >= earliest and ingest < latest_allowed and event_ts[row] <= end:
                tie = tie_ingest[request]
                inside = event_ts[row] < end or ingest < tie or (ingest == tie and ordinal[row] < tie_ordinal[request])
                if inside:
                    if count < len(rows):
                        rows[count] = row
                    count += 1
            row = previous[row]
        if count <= len(rows):
            rows[start:count] = rows[start:count][::-1].copy()
            _sort_rows(rows, spare, start, count, event_ts, ingest_ts, ordinal)
    offsets[len(hashes)] = count
    return count


@typed_kernel(
    types.void(_IN_I64, _IN_I64, _IN_I64, _IN_I32, _I64, _I64, _I64, _I64, _I32, _I64, _I64),
)
def find_rows(  # type: ignore[no-untyped-def]
    of_users, of_event_ts, of_ingest_ts, of_ordinal, ties, users, event_ts, ingest_ts, ordinal, previous, rows
):
    """The arena's row at each place, -1 where there is none: from the newest of its tied group back."""
    mask = uint64(len(ties) - 1)
    for i in range(len(of_users)):
        rows[i] = -1
        user, time, learned = of_users[i], of_event_ts[i], of_ingest_ts[i]
        if user < 0:
            continue
        place = tie_hash(user, time, learned) & mask
        row = int64(-1)
        while ties[place] != 0:
            other = ties[place] - 1
            if users[other] == user and event_ts[other] == time and ingest_ts[other] == learned:
                row = other
                break
            place = (place + uint64(1)) & mask
        while row >= 0:
            tied = event_ts[row] == time and ingest_ts[row] == learned
            if tied and ordinal[row] == of_ordinal[i]:
                rows[i] = row
                break
            if tied and ordinal[row] == 0:
                break
            row = previous[row]
