"""Examples that are as capture wrote them: read in one go, from the memory that Arrow hands out.

Nearly every table of examples has the very columns that capture and backfill write, in their types and without a null.
Column by column, Arrow and numpy need some hundred calls to read it, which costs more than looking its pointers up. So
Arrow gives the addresses of all buffers, by its C data interface, and a kernel checks and copies what they hold.

Any other table is for the readers of `logged` and `recents`, which take all there is and say what is wrong with it: here
nothing is an error, only not regular.
"""

# ruff: noqa: ARG001  numba looks at the number of an intrinsic's arguments

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from llvmlite import ir
from numba import int64, types, uint64
from numpy.typing import NDArray

from latewood.clock import EARLIEST_TS, LATEST_TS
from latewood.columns import Column, TraitColumn
from latewood.events import PLACE
from latewood.kernels import intrinsic, kernel
from latewood.materialize.suppress import SUPERSEDES
from latewood.pointer import POINTER_TYPE, Pointers
from latewood.schema import Schema, Trait
from latewood.stripes.addresses import (
    I8,
    address_of,
    copy_bytes,
    load_i32,
    load_i64,
    load_u8,
    load_u64,
    pointer,
    store_u8,
    store_u64,
)
from latewood.users import UserKeys, splitmix, user_keys

# struct ArrowArray of the C data interface: ten words.
_WORDS = 10
_NULL_COUNT, _OFFSET, _BUFFERS, _CHILDREN, _RELEASE = 8, 16, 40, 48, 64  # its length comes first
_IRREGULAR = -1
_splitmix = kernel(splitmix)
# A column of times as the kernel numbers them, by row of `times`.
_WATERMARK, _START_TS, _END_TS, _LENGTHS, _CUTOFF = range(5)


class Regular(NamedTuple):
    """n examples, no pointer of which is past its cutoff.

    Shapes: user_ids, keys, cutoff (n,); offsets (n + 1,), order (3, r), columns (r,) as of `Recents`. Of the traits only
    those that are plain values are among the columns; the lists of all are as long as they should be.
    """

    user_ids: pa.Array
    keys: UserKeys
    pointers: Pointers
    cutoff: NDArray[np.int64]
    offsets: NDArray[np.int64]
    order: NDArray[np.int64]
    columns: dict[int, TraitColumn]
    newest: int  # the latest watermark


class Layout(NamedTuple):
    """Where in a record batch of some schema the columns are that kernels read."""

    user_id: int
    is_number: bool  # what users are called
    features: list[int]  # the columns that are the examples' own
    places: NDArray[np.int64]  # of uih, recent and cutoff, then those of lists in recent
    epoch: NDArray[np.uint64]  # that all pointers have
    traits: tuple[tuple[int, np.dtype[Any], int], ...]  # of plain ones: the id, the dtype, and where the list is
    none: dict[int, TraitColumn]  # the traits of no events
    has_supersedes: bool  # its list is the last one then


def layout_of(columns: pa.Schema, schema: Schema, epoch: bytes, traits: Sequence[Trait]) -> Layout | None:
    """Where everything is; None if a column or type is not as capture writes it."""
    names = columns.names
    if any(names.count(name) != 1 for name in ("user_id", "uih", "recent", "cutoff")):
        return None
    uih, recent, cutoff = (columns.field(name).type for name in ("uih", "recent", "cutoff"))
    if not _are_pointers(uih) or not _is_time(cutoff) or columns.field("user_id").type != schema.user_id:
        return None
    lists = (
        {field.name: (place, field.type) for place, field in enumerate(recent)} if pa.types.is_struct(recent) else {}
    )
    if not lists or len(lists) != recent.num_fields or not all(pa.types.is_list(type_) for _, type_ in lists.values()):
        return None
    if any(name not in lists for name in PLACE) or any(trait.label not in lists for trait in traits):
        return None
    items = {name: type_.value_type for name, (_, type_) in lists.items()}
    if not (_is_time(items["event_ts"]) and _is_time(items["ingest_ts"]) and items["ordinal"] == pa.int32()):
        return None
    wanted = [*PLACE, *(trait.label for trait in traits)]
    has_supersedes = SUPERSEDES in lists
    places = [lists[name][0] for name in ([*wanted, SUPERSEDES] if has_supersedes else wanted)]
    tops = [names.index(name) for name in ("uih", "recent", "cutoff")]
    plain = [trait for trait in traits if not trait.coded and not trait.is_list and items[trait.label] == trait.type]
    of_traits = tuple((trait.id, trait.dtype, lists[trait.label][0]) for trait in plain)
    none: dict[int, TraitColumn] = {trait: Column(np.empty(0, dtype)) for trait, dtype, _ in of_traits}
    return Layout(
        names.index("user_id"),
        pa.types.is_integer(schema.user_id),
        [place for place in range(len(names)) if place not in tops],
        np.array(tops + places, np.int64),
        np.frombuffer(epoch, np.uint64),
        of_traits,
        none,
        has_supersedes,
    )


class _Room:
    """Where batches are exported to, one after the other."""

    def __init__(self) -> None:
        self.array = np.zeros(_WORDS, np.uint64)
        self.address = self.array.ctypes.data
        self.place = np.uint64(self.address)  # as a Python integer a kernel would add it up as a float


_rooms: list[_Room] = []  # those that nobody uses: to ask an array where it is takes as long as a kernel


def read_regular(table: pa.Table, layout: Layout, epoch: bytes) -> Regular | None:
    """The examples of a table of that layout; None if they are not regular after all."""
    batches = table.to_batches()
    if len(batches) != 1 or not len(batches[0]):
        return None
    batch, n = batches[0], len(batches[0])
    user_ids = batch.column(layout.user_id)
    try:  # what a damaged file names may lie beyond its buffers
        batch.validate()
        if not layout.is_number:
            user_ids.validate(full=True)
    except pa.ArrowInvalid:
        return None
    times, offsets = np.empty((5, n), np.int64), np.empty(n + 1, np.int64)
    end_ties, checksum = np.empty(n, np.int32), np.empty(n, np.uint64)
    if layout.is_number:
        keys = UserKeys(np.empty(n, np.uint64), np.zeros(n, np.uint64))
    elif user_ids.null_count:
        return None
    else:
        keys = user_keys(user_ids)
    try:
        room = _rooms.pop()
    except IndexError:  # not asked before: another thread may take the last one in between
        room = _Room()
    batch._export_to_c(room.address)
    try:
        count, newest = _read_heads(
            room.place,
            layout.places,
            layout.has_supersedes,
            layout.epoch,
            layout.user_id if layout.is_number else -1,
            keys.hash,
            times,
            end_ties,
            checksum,
            offsets,
        )
        if count == _IRREGULAR:
            return None
        order, columns = np.empty((3, count), np.int64), layout.none
        if count:
            columns = {trait: Column(np.empty(count, dtype)) for trait, dtype, _ in layout.traits}
            outputs = np.array(
                [
                    (place, dtype.itemsize if dtype != np.bool_ else 0, columns[trait][0].ctypes.data)
                    for trait, dtype, place in layout.traits
                ],
                np.uint64,
            ).reshape(-1, 3)
            if not _read_recents(room.place, layout.places, order, outputs):
                return None
    finally:
        if room.array[_RELEASE // 8]:  # the kernel did not, for there was more to read
            _release(room.place)
        _rooms.append(room)
    watermark, start_ts, end_ts, length, cutoff = times
    pointers = Pointers(epoch, watermark, start_ts, end_ts, end_ties, length, checksum)
    return Regular(user_ids, keys, pointers, cutoff, offsets, order, columns, newest)


def _are_pointers(type_: pa.DataType) -> bool:
    """Whether a struct has the fields of a pointer in their order, whatever it says of nulls."""
    if not pa.types.is_struct(type_) or [field.name for field in type_] != [field.name for field in POINTER_TYPE]:
        return False
    return all(
        _is_time(field.type) if _is_time(wanted.type) and wanted.name != "length" else field.type == wanted.type
        for field, wanted in zip(type_, POINTER_TYPE, strict=True)
    )


def _is_time(type_: pa.DataType) -> bool:
    return bool(type_ == pa.int64() or (pa.types.is_timestamp(type_) and type_.unit == "us"))


@intrinsic
def _call(typing_context: Any, function: Any, argument: Any) -> Any:
    """Call a C function of one address, by its own."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function, argument = arguments
        type_ = ir.FunctionType(ir.VoidType(), [I8.as_pointer()])
        builder.call(pointer(builder, function, type_), [pointer(builder, argument, I8)])
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), generate


@kernel
def _release(array: Any) -> None:
    """Give back what was exported, which marks it as released."""
    function = load_u64(array + uint64(_RELEASE))
    if function:
        _call(function, array)


@kernel
def _child(array: Any, place: Any) -> Any:
    return load_u64(load_u64(array + uint64(_CHILDREN)) + uint64(place) * uint64(8))


@kernel
def _buffer(array: Any, number: Any) -> Any:
    return load_u64(load_u64(array + uint64(_BUFFERS)) + uint64(number) * uint64(8))


@kernel
def _offset(array: Any) -> Any:
    return uint64(load_i64(array + uint64(_OFFSET)))


@kernel
def _may_have_nulls(array: Any) -> Any:
    """A count of -1 is one that nobody has made yet."""
    return load_i64(array + uint64(_NULL_COUNT)) != 0 and _buffer(array, 0) != uint64(0)


@kernel
def _is_possible(time: Any) -> Any:
    return EARLIEST_TS <= time <= LATEST_TS


@kernel
def _read_heads(
    batch: Any,
    layout: Any,
    has_supersedes: Any,
    epoch: Any,
    user_id: Any,
    hashes: Any,
    times: Any,
    end_ties: Any,
    checksum: Any,
    offsets: Any,
) -> Any:
    """`_read_all_heads`, and give the batch back where nothing more is to be read."""
    found = _read_all_heads(batch, layout, has_supersedes, epoch, user_id, hashes, times, end_ties, checksum, offsets)
    if found[0] <= 0:
        _release(batch)
    return found


@kernel
def _read_all_heads(
    batch: Any,
    layout: Any,
    has_supersedes: Any,
    epoch: Any,
    user_id: Any,
    hashes: Any,
    times: Any,
    end_ties: Any,
    checksum: Any,
    offsets: Any,
) -> Any:
    """Check and copy all but the recent events.

    Args: user_id: the place of users that are numbers, of which the hashes are made, or -1.
    Returns: how many recent events there are, or _IRREGULAR; and the latest watermark.
    """
    if user_id >= 0 and not _hash_ids(_child(batch, user_id), hashes):
        return int64(_IRREGULAR), int64(0)
    n = times.shape[1]
    uih, recent, cutoff = _child(batch, layout[0]), _child(batch, layout[1]), _child(batch, layout[2])
    if _may_have_nulls(uih) or _may_have_nulls(recent) or _may_have_nulls(cutoff):
        return int64(_IRREGULAR), int64(0)
    for place in range(7):
        if _may_have_nulls(_child(uih, place)):
            return int64(_IRREGULAR), int64(0)
    first = _offset(uih)
    epochs = _child(uih, 0)
    at = _buffer(epochs, 1) + (first + _offset(epochs)) * uint64(16)
    for _ in range(n):
        if load_u64(at) != epoch[0] or load_u64(at + uint64(8)) != epoch[1]:
            return int64(_IRREGULAR), int64(0)
        at += uint64(16)
    for k in range(5):  # watermark, start_ts, end_ts, length; and the cutoff
        column = cutoff if k == _CUTOFF else _child(uih, 5 if k == _LENGTHS else k + 1)
        skipped = _offset(column) if k == _CUTOFF else first + _offset(column)
        at = _buffer(column, 1) + skipped * uint64(8)
        for i in range(n):
            times[k, i] = load_i64(at + uint64(i) * uint64(8))
            if k != _LENGTHS and not _is_possible(times[k, i]):
                return int64(_IRREGULAR), int64(0)
    newest = int64(EARLIEST_TS)
    ties, sums = _child(uih, 4), _child(uih, 6)
    ties_at = _buffer(ties, 1) + (first + _offset(ties)) * uint64(4)
    sums_at = _buffer(sums, 1) + (first + _offset(sums)) * uint64(8)
    for i in range(n):
        end_ties[i] = load_i32(ties_at + uint64(i) * uint64(4))
        checksum[i] = load_u64(sums_at + uint64(i) * uint64(8))
        newest = max(newest, times[_WATERMARK, i])
        if end_ties[i] < 0 or end_ties[i] > times[_LENGTHS, i] or times[_WATERMARK, i] > times[_CUTOFF, i]:
            return int64(_IRREGULAR), int64(0)
    lists = len(layout) - 3
    for k in range(lists):
        column = _child(recent, layout[3 + k])
        if _may_have_nulls(column):
            return int64(_IRREGULAR), int64(0)
        at = _buffer(column, 1) + (_offset(recent) + _offset(column)) * uint64(4)
        begin = load_i32(at)
        if (has_supersedes and k == lists - 1) or (k > 0 and offsets[n] == 0):
            if load_i32(at + uint64(n) * uint64(4)) != begin:
                return int64(_IRREGULAR), int64(0)
            continue
        if k:
            differing = int64(0)
            for i in range(n + 1):
                differing |= (load_i32(at + uint64(i) * uint64(4)) - begin) ^ offsets[i]
            if differing:
                return int64(_IRREGULAR), int64(0)
            continue
        for i in range(n + 1):
            offsets[i] = load_i32(at + uint64(i) * uint64(4)) - begin
            if offsets[i] < 0 or (i and offsets[i] < offsets[i - 1]):
                return int64(_IRREGULAR), int64(0)
    return int64(offsets[n]), newest


@kernel
def _hash_ids(column: Any, hashes: Any) -> Any:
    """`user_keys` of a column of integers. Returns: whether it is without nulls."""
    if _may_have_nulls(column):
        return False
    at = _buffer(column, 1) + _offset(column) * uint64(8)
    for i in range(len(hashes)):
        hashes[i] = _splitmix(load_u64(at + uint64(i) * uint64(8)))
    return True


@kernel
def _read_recents(batch: Any, layout: Any, order: Any, outputs: Any) -> Any:
    """Copy the recent events, which are there. Returns: whether they are regular.

    Shapes: order (3, r); outputs (traits, 3): the place of a trait's list, the bytes of a value (0: bits), where to.
    """
    recent, count = _child(batch, layout[1]), order.shape[1]
    for k in range(3):
        column, skipped = _values(recent, layout[3 + k], count)
        if column == uint64(0):
            return False
        at = _buffer(column, 1)
        if k == 2:
            for j in range(count):
                order[k, j] = load_i32(at + (skipped + uint64(j)) * uint64(4))
            continue
        size = uint64(count) * uint64(8)
        copy_bytes(address_of(order) + uint64(k) * size, at + skipped * uint64(8), size)
        earliest, latest = LATEST_TS, EARLIEST_TS
        for j in range(count):
            earliest, latest = min(earliest, order[k, j]), max(latest, order[k, j])
        if earliest < EARLIEST_TS or latest > LATEST_TS:
            return False
    for k in range(len(outputs)):
        column, skipped = _values(recent, outputs[k, 0], count)
        if column == uint64(0):
            return False
        at, itemsize, out = _buffer(column, 1), outputs[k, 1], outputs[k, 2]
        if itemsize:
            copy_bytes(out, at + skipped * itemsize, uint64(count) * itemsize)
        else:
            _spread_bits(at, skipped, uint64(count), out)
    return True


@kernel
def _spread_bits(bits: Any, first: Any, count: Any, out: Any) -> None:
    """Write bits as bytes, eight at a time: each byte of a word takes the bit of its number."""
    at, skipped, done = bits + (first >> uint64(3)), first & uint64(7), uint64(0)
    while done + uint64(8) <= count:
        byte = load_u8(at) >> skipped
        if skipped:  # else the last byte may be the buffer's last
            byte |= load_u8(at + uint64(1)) << (uint64(8) - skipped)
        chosen = ((byte & uint64(0xFF)) * uint64(0x0101010101010101)) & uint64(0x8040201008040201)
        word = ((chosen + uint64(0x7F7F7F7F7F7F7F7F)) >> uint64(7)) & uint64(0x0101010101010101)
        store_u64(out + done, word)
        at, done = at + uint64(1), done + uint64(8)
    for k in range(done, count):
        bit = first + uint64(k)
        store_u8(out + uint64(k), (load_u8(bits + (bit >> uint64(3))) >> (bit & uint64(7))) & uint64(1))


@kernel
def _values(recent: Any, place: Any, count: Any) -> Any:
    """The values of a list of recent events, and how many of them lie before the first example's.

    Instead of values with a null, or fewer than `count`: 0.
    """
    column = _child(recent, place)
    begin = load_i32(_buffer(column, 1) + (_offset(recent) + _offset(column)) * uint64(4))
    values = _child(column, 0)
    if begin < 0 or load_i64(values) < begin + count or _may_have_nulls(values):
        return uint64(0), uint64(0)
    return values, uint64(begin) + _offset(values)
