"""The vocabulary: codes are stable, global and durable before they are given out."""

import subprocess
import sys
import textwrap
import threading
import tracemalloc
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latewood.columns import Column, Lists
from latewood.errors import CorruptionError, PointerError, SchemaError, ScrubbedError
from latewood.pointer import EPOCH_BYTES
from latewood.schema import Schema
from latewood.storage import Storage, StoredObject, keys, open_storage
from latewood.storage.local import LocalStorage
from latewood.vocabulary import Vocabulary, check_extent, extent
from latewood.vocabulary.chunk import Place, encode_chunk

SCHEMA = Schema(
    user_id=pa.int64(),
    traits=pa.schema(
        [
            ("plain", pa.int64()),
            ("word", pa.string()),
            ("action", pa.dictionary(pa.int32(), pa.string())),
            ("hash", pa.dictionary(pa.int32(), pa.uint64())),
            ("tags", pa.list_(pa.string())),
            ("pair", pa.list_(pa.dictionary(pa.int32(), pa.uint64()), 2)),
        ]
    ),
)
WORD, ACTION, HASH = SCHEMA["word"], SCHEMA["action"], SCHEMA["hash"]


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return open_storage(tmp_path if request.param == "local" else f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def vocabulary(storage: Storage) -> Vocabulary:
    return Vocabulary(storage, SCHEMA)


def words(*values: str | None) -> pa.Array:
    return pa.array(values, pa.string())


def decoded(vocabulary: Vocabulary, trait: object, column: object) -> list[object]:
    return vocabulary.values(trait.id).take(pa.array(column.values, mask=column.mask)).to_pylist()


def test_codes_count_up_in_the_order_of_appearance(vocabulary: Vocabulary) -> None:
    column = vocabulary.encode(WORD, words("b", "a", "b", "c"))
    assert column.values.dtype == np.int32
    assert column.values.tolist() == [0, 1, 0, 2]
    assert column.mask is None
    assert vocabulary.encode(WORD, words("c", "d", "a")).values.tolist() == [2, 3, 1]
    assert vocabulary.values(WORD.id).equals(words("b", "a", "c", "d"))


def test_traits_have_lists_of_their_own(vocabulary: Vocabulary) -> None:
    vocabulary.encode(WORD, words("a"))
    assert vocabulary.encode(ACTION, words("b")).values.tolist() == [0]
    assert vocabulary.encode(HASH, pa.array([2**64 - 1], pa.uint64())).values.tolist() == [0]
    assert vocabulary.values(HASH.id).equals(pa.array([2**64 - 1], pa.uint64()))


@pytest.mark.parametrize("values", [[None], [None, None, None], ["x", None], [None, "y", None, "x"], []])
def test_nulls_are_masked_and_their_code_is_0(vocabulary: Vocabulary, values: list[str | None]) -> None:
    vocabulary.encode(WORD, words("first"))
    column = vocabulary.encode(WORD, words(*values))
    nulls = [value is None for value in values]
    assert (column.mask is None) if not any(nulls) else column.mask.tolist() == nulls
    assert not column.values[np.array(nulls, np.bool_)].any()
    assert decoded(vocabulary, WORD, column) == values


def test_items_of_lists_have_the_codes(vocabulary: Vocabulary) -> None:
    tags, pair = SCHEMA["tags"], SCHEMA["pair"]
    column = vocabulary.encode(tags, pa.array([["b", "a"], None, [], ["b"]]))
    assert isinstance(column, Lists)
    assert column.items.tolist() == [0, 1, 0]
    assert column.lengths.tolist() == [2, 0, 0, 1]
    assert vocabulary.to_arrow(tags, column).to_pylist() == [["b", "a"], None, [], ["b"]]
    back = column.take(np.array([3, 2, 0]))
    assert vocabulary.to_arrow(tags, back).to_pylist() == [["b"], [], ["b", "a"]]
    numbers = pa.array([[2**64 - 1, 7], None, [7, 7]], pair.value_type)
    again = vocabulary.codes(pair, vocabulary.to_arrow(pair, vocabulary.encode(pair, numbers)))
    assert again.known.tolist() == [0, 1, 1, 1]
    assert vocabulary.to_arrow(pair, again).type == pair.value_type
    assert vocabulary.to_arrow(pair, again).to_pylist() == numbers.to_pylist()
    with pytest.raises(PointerError, match="does not know the value 'c' of trait 'tags'"):
        vocabulary.codes(tags, pa.array([["a", "c"]]))
    with pytest.raises(CorruptionError):
        vocabulary.to_arrow(tags, column._replace(items=np.array([0, 9, 0], np.int32)))


def test_an_empty_list_has_no_values(vocabulary: Vocabulary) -> None:
    assert vocabulary.values(WORD.id).equals(words())
    column = vocabulary.encode(WORD, words(None))
    assert column.values.tolist() == [0]
    assert vocabulary.values(WORD.id).equals(words())


@pytest.mark.parametrize(
    "values",
    [
        pa.chunked_array([words("a"), words("b", None)]),
        pa.chunked_array([], pa.string()),
        words("z", "a", "b", None, "z")[1:4],
        words("a", "b", None).dictionary_encode(),
        pa.DictionaryArray.from_arrays(pa.array([3, 1, 0], pa.int8()), words("a", None, "unused", "a")),
        pa.chunked_array([words("a").dictionary_encode(), words("b", "a").dictionary_encode()]),
    ],
    ids=["chunks", "no chunks", "slice", "dictionary", "dictionary with repeats and nulls", "differing dictionaries"],
)
def test_any_form_of_the_values_is_encoded(vocabulary: Vocabulary, values: pa.Array) -> None:
    assert decoded(vocabulary, WORD, vocabulary.encode(WORD, values)) == values.to_pylist()
    assert "unused" not in vocabulary.values(WORD.id).to_pylist()


def test_text_that_is_not_utf8_is_refused(storage: Storage, vocabulary: Vocabulary) -> None:
    broken = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xff\xfe"))
    with pytest.raises(SchemaError, match=r"'word'.*UTF-8"):
        vocabulary.encode(WORD, broken)
    assert storage.list() == []


def test_a_value_is_written_before_its_code_is_given_out(storage: Storage, vocabulary: Vocabulary) -> None:
    vocabulary.encode(WORD, words("a", "b"))
    vocabulary.encode(WORD, words("c", "a"))
    vocabulary.encode(WORD, words("b"))
    assert [item.key for item in storage.list()] == [keys.vocabulary_chunk(WORD.id, seq) for seq in (0, 1)]
    assert Vocabulary(storage, SCHEMA).encode(WORD, words("c", "b", "a")).values.tolist() == [2, 1, 0]


def test_a_write_that_fails_gives_out_nothing(storage: Storage) -> None:
    class Full:
        full = True

        def __getattr__(self, name: str) -> object:
            return getattr(storage, name)

        def create(self, key: str, data: bytes) -> bool:
            if self.full:
                raise OSError(28, "No space left on device")
            return storage.create(key, data)

    place = Full()
    vocabulary = Vocabulary(place, SCHEMA)
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            vocabulary.encode(WORD, words("a"))
    place.full = False
    assert vocabulary.encode(WORD, words("b", "a")).values.tolist() == [0, 1]


def test_a_chunk_whose_answer_was_lost_is_used(storage: Storage) -> None:
    class Lossy:
        def __getattr__(self, name: str) -> object:
            return getattr(storage, name)

        def create(self, key: str, data: bytes) -> bool:
            if storage.create(key, data):
                raise OSError("the answer was lost")
            return False

    vocabulary = Vocabulary(Lossy(), SCHEMA)
    with pytest.raises(OSError, match="lost"):
        vocabulary.encode(WORD, words("a"))
    assert vocabulary.encode(WORD, words("a")).values.tolist() == [0]
    assert vocabulary.values(WORD.id).equals(words("a"))


def test_the_loser_of_a_race_takes_the_winners_codes(storage: Storage) -> None:
    one, two = Vocabulary(storage, SCHEMA), Vocabulary(storage, SCHEMA)
    one.encode(WORD, words("a"))
    two.encode(WORD, words("a"))
    one.encode(WORD, words("b", "c"))
    assert two.encode(WORD, words("d", "c", "e")).values.tolist() == [3, 2, 4]
    assert one.encode(WORD, words("e", "f")).values.tolist() == [4, 5]
    assert one.values(WORD.id).equals(two.values(WORD.id, at_least=6))


def test_threads_of_several_instances_agree(storage: Storage) -> None:
    vocabularies = [Vocabulary(storage, SCHEMA) for _ in range(2)]
    barrier = threading.Barrier(4)

    def add(thread: int) -> list[tuple[str, int]]:
        vocabulary, random = vocabularies[thread % 2], np.random.default_rng(thread)
        given_out = []
        barrier.wait()
        for round_ in range(20):
            batch = [str(n) for n in random.integers(0, 20 + 10 * round_, 15)]
            given_out += zip(batch, vocabulary.encode(WORD, words(*batch)).values.tolist(), strict=True)
        return given_out

    with ThreadPoolExecutor(4) as pool:
        pairs = {pair for pairs in pool.map(add, range(4)) for pair in pairs}
    assert len({word for word, _ in pairs}) == len(pairs), "each value has one code"
    values = Vocabulary(storage, SCHEMA).values(WORD.id).to_pylist()
    assert len(values) == len(set(values)) == len(pairs)
    assert all(values[code] == word for word, code in pairs)


ADDER = """
    import sys, pyarrow as pa, latewood.vocabulary as v
    from latewood.schema import Schema
    from latewood.storage import open_storage
    schema = Schema(user_id=pa.int64(), traits=pa.schema([("plain", pa.int64()), ("word", pa.string())]))
    vocabulary = v.Vocabulary(open_storage(sys.argv[1]), schema)
    print("ready", flush=True)
    sys.stdin.readline()
    for i in range(40):
        batch = [str(i), str(i + int(sys.argv[2])), "all"]
        print(*batch, *vocabulary.encode(schema["word"], pa.array(batch)).values, flush=True)
"""


def test_processes_agree(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(ADDER), str(tmp_path)]
    processes = [
        subprocess.Popen([*command, shift], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for shift in ("3", "7")
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    lines = [line.split() for process in processes for line in process.communicate()[0].splitlines()]
    assert len(lines) == 80
    values = Vocabulary(open_storage(tmp_path), SCHEMA).values(WORD.id).to_pylist()
    assert len(values) == len(set(values)) == 48
    for line in lines:
        assert [values[int(code)] for code in line[3:]] == line[:3]


def test_a_read_only_instance_sees_what_others_add(storage: Storage, vocabulary: Vocabulary) -> None:
    reader = Vocabulary(storage, SCHEMA, read_only=True)
    assert reader.values(WORD.id).equals(words())
    vocabulary.encode(WORD, words("a", "b"))
    assert reader.values(WORD.id, at_least=1).equals(words("a", "b"))
    vocabulary.encode(WORD, words("c"))
    vocabulary.encode(WORD, words("d"))
    assert reader.values(WORD.id).equals(words("a", "b")), "what is known stays as it is until it is too short"
    assert reader.codes(WORD, words("d", None, "a")).values.tolist() == [3, 0, 0]
    vocabulary.encode(WORD, words("e"))
    assert reader.encode(WORD, words("e")).values.tolist() == [4]
    vocabulary.encode(WORD, words("f"))
    reader.refresh(WORD.id)
    assert reader.values(WORD.id).equals(words(*"abcdef"))


def test_values_handed_out_earlier_are_a_prefix_of_later_ones(vocabulary: Vocabulary) -> None:
    earlier = []
    for i in range(10):
        vocabulary.encode(WORD, words(str(i), str(100 + i)))
        earlier.append(vocabulary.values(WORD.id))
    for values in earlier:
        assert values.equals(earlier[-1][: len(values)])


@pytest.mark.parametrize("read_only", [True, False])
def test_reading_never_adds(storage: Storage, read_only: bool) -> None:
    Vocabulary(storage, SCHEMA).encode(WORD, words("a"))
    reader = Vocabulary(storage, SCHEMA, read_only)
    with pytest.raises(PointerError, match=r"'never seen'.*'word'"):
        reader.codes(WORD, words("a", None, "never seen"))
    if read_only:
        with pytest.raises(PointerError, match="'never seen'"):
            reader.encode(WORD, words("never seen"))
    assert len(storage.list()) == 1


def test_a_code_without_a_value_is_damage(vocabulary: Vocabulary) -> None:
    vocabulary.encode(WORD, words("a", "b"))
    with pytest.raises(CorruptionError, match=f"vocabulary/{WORD.id}.*'word'.*code 2"):
        vocabulary.values(WORD.id, at_least=3)


@pytest.fixture
def damaged(storage: Storage, vocabulary: Vocabulary) -> Storage:
    """Three chunks: one value, two, one."""
    for batch in (["a"], ["b", "c"], ["d"]):
        vocabulary.encode(WORD, words(*batch))
    return storage


def test_a_damaged_chunk_is_named(damaged: Storage) -> None:
    key = keys.vocabulary_chunk(WORD.id, 1)
    whole = damaged.read(key)
    for broken in (whole[:-1], b"", whole[:40] + b"?" + whole[41:], damaged.read(keys.vocabulary_chunk(WORD.id, 2))):
        damaged.write(key, broken)
        for use in (
            lambda: Vocabulary(damaged, SCHEMA).values(WORD.id),
            lambda: Vocabulary(damaged, SCHEMA).encode(WORD, words("a")),
            lambda: Vocabulary(damaged, SCHEMA, True).codes(WORD, words("a")),
        ):
            with pytest.raises(CorruptionError, match=key):
                use()


def test_a_missing_chunk_is_named(damaged: Storage) -> None:
    key = keys.vocabulary_chunk(WORD.id, 1)
    damaged.delete([key])
    with pytest.raises(CorruptionError, match=key):
        Vocabulary(damaged, SCHEMA).values(WORD.id)


def test_what_is_left_of_a_dropped_trait_is_no_damage(damaged: Storage) -> None:
    """Found by the simulation: a writer that did not know yet added a chunk while the others were collected."""
    damaged.delete([keys.vocabulary_chunk(WORD.id, 0)])
    live = Vocabulary(damaged, SCHEMA, is_live=lambda trait_id: trait_id != WORD.id)
    assert live.values(WORD.id).equals(words())
    with pytest.raises(PointerError, match="'b'"):
        live.codes(WORD, words("b"))
    assert live.encode(WORD, words("x")).values.tolist() == [0]


def test_codes_of_one_value_are_unified(storage: Storage, vocabulary: Vocabulary) -> None:
    """Found by the simulation: verify took a value with two codes for two values."""
    vocabulary.encode(WORD, words("a"))
    again = encode_chunk(words("a", "b"), Place(bytes(EPOCH_BYTES), WORD.id, 1, 1))
    assert storage.create(keys.vocabulary_chunk(WORD.id, 1), again)
    known, mask = Vocabulary(storage, SCHEMA), np.array([False, False, False, True])
    column = Column(np.array([0, 1, 2, 0], np.int32), mask)
    assert known.unified(WORD.id, column).values.tolist() == [0, 0, 2, 0]
    assert known.unified(ACTION.id, Column(np.zeros(2, np.int32), np.ones(2, np.bool_))).values.tolist() == [0, 0]
    assert known.unified(SCHEMA["plain"].id, column) is column
    lists = Lists(np.array([2, 1, 9, 0], np.int32), np.array([3, 0, 0]), np.array([1, 2, 0], np.int32), mask[1:])
    unified = known.unified(WORD.id, lists)
    assert isinstance(unified, Lists)
    assert (unified.items.tolist(), unified.lengths.tolist()) == ([0, 2, 0], [1, 2, 0])


class Overtaken(LocalStorage):
    """Lists a folder while others create files in it: what is created behind the reader's back is not listed."""

    def list(self, prefix: str = "") -> Sequence[StoredObject]:
        return [item for item in super().list(prefix) if not item.key.endswith("00000001.arrow")]


def test_a_listing_that_is_overtaken_is_no_damage(tmp_path: Path) -> None:
    """Of chunks that others append meanwhile a listing may show a later one and not an earlier one."""
    writer = Vocabulary(LocalStorage(tmp_path), SCHEMA)
    for word in "abcd":
        writer.encode(WORD, words(word))
    overtaken, whole = Overtaken(tmp_path), extent(LocalStorage(tmp_path), SCHEMA)
    assert Vocabulary(overtaken, SCHEMA).values(WORD.id).equals(words(*"abcd"))
    assert extent(overtaken, SCHEMA) == whole
    check_extent(overtaken, whole)
    LocalStorage(tmp_path).delete([keys.vocabulary_chunk(WORD.id, 1)])
    with pytest.raises(CorruptionError, match=keys.vocabulary_chunk(WORD.id, 1)):
        check_extent(overtaken, whole)


def test_a_forged_extent_costs_no_memory(damaged: Storage) -> None:
    """Found by forging manifests: a count of 2**31 took all the memory there was."""
    tracemalloc.start()
    with pytest.raises(CorruptionError, match="is missing"):
        check_extent(damaged, [(WORD.id, 2**20)])
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_chunk_that_is_damaged_later_does_not_touch_what_was_read(damaged: Storage) -> None:
    reader = Vocabulary(damaged, SCHEMA)
    reader.values(WORD.id)
    damaged.write(keys.vocabulary_chunk(WORD.id, 3), b"not a chunk")
    assert reader.codes(WORD, words("d")).values.tolist() == [3]
    for _ in range(2):
        with pytest.raises(CorruptionError, match=keys.vocabulary_chunk(WORD.id, 3)):
            reader.encode(WORD, words("new"))
    assert reader.values(WORD.id).equals(words(*"abcd"))


BATCHES = st.lists(st.lists(st.none() | st.text(max_size=3), max_size=8), max_size=6)


@given(batches=BATCHES, writers=st.lists(st.integers(0, 1), min_size=6, max_size=6))
def test_what_is_encoded_comes_back(batches: list[list[str | None]], writers: list[int]) -> None:
    storage = open_storage(f"memory://{uuid.uuid4().hex}")
    vocabularies = [Vocabulary(storage, SCHEMA) for _ in range(2)]
    columns = [vocabularies[w].encode(WORD, words(*batch)) for w, batch in zip(writers, batches, strict=False)]
    reader = Vocabulary(storage, SCHEMA, read_only=True)
    assert [decoded(reader, WORD, column) for column in columns] == batches
    known = reader.values(WORD.id).to_pylist()
    assert sorted(known) == sorted({word for batch in batches for word in batch if word is not None})


@given(st.lists(st.none() | st.integers(0, 2**64 - 1), max_size=20))
def test_integers_come_back(numbers: list[int | None]) -> None:
    vocabulary = Vocabulary(open_storage(f"memory://{uuid.uuid4().hex}"), SCHEMA)
    column = vocabulary.encode(HASH, pa.array(numbers, pa.uint64()))
    assert decoded(vocabulary, HASH, column) == numbers


class Tier:
    """Blanks what it is given, but for the codes that it says are in use."""

    def __init__(self, used: tuple[int, ...] = ()) -> None:
        self.used, self.blanked = used, 0

    def blank(self, candidates: dict[int, np.ndarray], put: object, still: object = None) -> int | None:
        left = {
            trait: [code for code in codes.tolist() if code not in self.used] for trait, codes in candidates.items()
        }
        left = {trait: codes for trait, codes in left.items() if codes}
        if not left:
            return None
        put(self.blanked, left)
        self.blanked += 1
        return self.blanked - 1


def bytes_of(storage: Storage) -> bytes:
    return b"".join(storage.read(stored.key) for stored in storage.list(keys.VOCABULARY))


def test_a_blanked_value_is_gone_and_its_code_is_not_given_out_again(storage: Storage, vocabulary: Vocabulary) -> None:
    vocabulary.encode(WORD, words("keep", "private words"))
    vocabulary.encode(WORD, words("later"))
    other = Vocabulary(storage, SCHEMA)
    assert other.encode(WORD, words("private words")).values.tolist() == [1]
    assert b"private words" in bytes_of(storage)
    tier = Tier(used=(2,))
    assert vocabulary.blank(tier, {WORD.id: np.array([1, 2], np.int32)}) == 1
    assert b"private words" not in bytes_of(storage)
    assert vocabulary.values(WORD.id).to_pylist() == ["keep", None, "later"]
    assert vocabulary.blanked == 1
    # whoever has the value in memory is told by the tier, and reads on
    assert other.blanked == 0
    other.refresh_blanked()
    for known in (vocabulary, other, Vocabulary(storage, SCHEMA)):
        assert known.encode(WORD, words("private words", "keep", "later")).values.tolist() == [3, 0, 2]
        assert known.values(WORD.id).to_pylist() == ["keep", None, "later", "private words"]


def test_blankings_count_only_once_codes_go_by_them(
    storage: Storage, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by the simulation: a read that failed after one blanking was read left it counted and without effect."""
    vocabulary.encode(WORD, words("a", "b"))
    vocabulary.encode(ACTION, words("buy"))
    other = Vocabulary(storage, SCHEMA)
    assert other.encode(WORD, words("b")).values.tolist() == [1]
    vocabulary.put_blanked(0, {WORD.id: [1], ACTION.id: [0]})
    read = storage.read

    def fail_at_the_next(key: str) -> bytes:
        if key == keys.blanked(1):
            raise OSError("no")
        return read(key)

    monkeypatch.setattr(storage, "read", fail_at_the_next)
    with pytest.raises(OSError, match="no"):
        other.refresh_blanked()
    assert other.blanked == 1
    assert other.encode(WORD, words("a", "b")).values.tolist() == [0, 2]
    assert other.encode(ACTION, words("buy")).values.tolist() == [1]


def test_a_blanking_that_a_chunk_shows_is_not_counted_yet(storage: Storage, vocabulary: Vocabulary) -> None:
    vocabulary.encode(WORD, words("a"))
    vocabulary.encode(ACTION, words("buy"))
    other = Vocabulary(storage, SCHEMA)
    other.encode(ACTION, words("buy"))
    vocabulary.put_blanked(0, {WORD.id: [0], ACTION.id: [0]})
    vocabulary.erase_blanked()
    assert other.encode(WORD, words("b")).values.tolist() == [1]  # its chunk has a null, and so the blanking is read
    assert (other.blanked, other.blanked_known) == (0, 1)
    other.refresh_blanked()
    assert other.blanked == 1
    assert other.encode(ACTION, words("buy")).values.tolist() == [1]


def test_a_blanking_that_two_threads_read_at_once_counts_once(
    storage: Storage, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vocabulary would take the next one for read, and give out codes that it blanks."""
    vocabulary.encode(WORD, words("a"))
    other, read = Vocabulary(storage, SCHEMA), storage.read
    vocabulary.put_blanked(0, {WORD.id: [0]})
    vocabulary.erase_blanked()
    thread = threading.Thread(target=other.values, args=[WORD.id])  # its chunk has a null, and so the blanking is read

    def read_both(key: str) -> bytes:
        data = read(key)
        if key == keys.blanked(0) and thread.ident is None:
            thread.start()
            thread.join(0.2)  # it waits, if all is well
        return data

    monkeypatch.setattr(storage, "read", read_both)
    other.refresh_blanked()
    thread.join()
    assert (other.blanked, other.blanked_known) == (1, 1)


def test_a_blanked_value_that_an_example_carries_is_read_in_this_process_only(
    storage: Storage, vocabulary: Vocabulary
) -> None:
    """Found by the simulation: retention had taken the event, a scrub of another user its value."""
    vocabulary.encode(WORD, words("keep", "once", "twice"))
    vocabulary.blank(Tier(), {WORD.id: np.array([1, 2], np.int32)})
    reader = Vocabulary(storage, SCHEMA, read_only=True)
    for known in (vocabulary, reader):
        assert known.codes(WORD, words("twice", "keep", "once", None)).values.tolist() == [1, 0, 2, 0]
        assert known.values(WORD.id).to_pylist() == ["keep", "twice", "once"]
        with pytest.raises(PointerError, match="does not know the value 'never'"):
            known.codes(WORD, words("never"))
    assert b"twice" not in bytes_of(storage)
    assert vocabulary.encode(WORD, words("twice")).values.tolist() == [3]  # what is written gets a code of its own
    reader.refresh(WORD.id)
    assert reader.values(WORD.id).to_pylist() == ["keep", "twice", "once", "twice"]


def test_a_code_that_was_read_means_what_it_meant(storage: Storage, vocabulary: Vocabulary) -> None:
    """Found by the simulation: an example's values were looked up, and blanked before the batch was made of them."""
    vocabulary.encode(WORD, words("keep", "once", "twice", "unread"))
    reader = Vocabulary(storage, SCHEMA, read_only=True)
    codes = reader.codes(WORD, words("twice", "keep")).values.tolist()
    vocabulary.blank(Tier(), {WORD.id: np.array([1, 2, 3], np.int32)})
    reader.refresh(WORD.id)
    assert [reader.values(WORD.id).to_pylist()[code] for code in codes] == ["twice", "keep"]
    assert reader.values(WORD.id).to_pylist() == ["keep", None, "twice", None]
    assert reader.codes(WORD, words("twice", "once")).values.tolist() == [2, 1]
    assert vocabulary.values(WORD.id).to_pylist() == ["keep", None, None, None]


def test_a_visitor_does_not_stand_in_for_what_events_had(storage: Storage, vocabulary: Vocabulary) -> None:
    """An event was read, then its value was blanked, then another thread read an example with another such value."""
    vocabulary.encode(WORD, words("keep", "of an event", "of an example"))
    column = Column(np.array([0, 1], np.int32))
    vocabulary.blank(Tier(), {WORD.id: np.array([1, 2], np.int32)})
    assert vocabulary.codes(WORD, words("of an example")).values.tolist() == [1]
    with pytest.raises(ScrubbedError, match="forgotten while it was read"):
        vocabulary.to_arrow(WORD, column)


def test_a_value_that_is_blanked_twice_keeps_both_its_places(storage: Storage, vocabulary: Vocabulary) -> None:
    reader, tier = Vocabulary(storage, SCHEMA, read_only=True), Tier()
    vocabulary.encode(WORD, words("keep"))
    for code in (1, 2):
        vocabulary.encode(WORD, words("again"))
        reader.refresh(WORD.id)
        assert reader.codes(WORD, words("again")).values.tolist() == [code]
        vocabulary.blank(tier, {WORD.id: np.array([code], np.int32)})
    reader.refresh(WORD.id)
    assert reader.values(WORD.id).to_pylist() == ["keep", "again", "again"]


def test_a_value_that_is_blanked_while_another_is_added_gets_a_new_code(
    storage: Storage, vocabulary: Vocabulary
) -> None:
    """Found by the simulation: who adds a value learns then that one which was known is known no more."""
    vocabulary.encode(WORD, words("a", "b"))
    other = Vocabulary(storage, SCHEMA)
    other.encode(WORD, words("c"))
    other.put_blanked(0, {WORD.id: [1, 2]})
    other.erase_blanked()
    other.encode(WORD, words("d"))
    assert vocabulary.encode(WORD, words("a", "b", "e")).values.tolist() == [0, 4, 5]


def test_nothing_is_blanked_that_is_in_use(storage: Storage, vocabulary: Vocabulary) -> None:
    vocabulary.encode(WORD, words("a", "b"))
    assert vocabulary.blank(Tier(used=(0, 1)), {WORD.id: np.array([0, 1], np.int32)}) == 0
    assert vocabulary.values(WORD.id).to_pylist() == ["a", "b"]
    assert vocabulary.blanked == 0


def test_of_two_who_erase_at_once_neither_brings_back_what_the_other_took(
    storage: Storage, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary.encode(WORD, words("keep", "private words", "secret words"))
    other, tier, write = Vocabulary(storage, SCHEMA), Tier(), storage.write

    def late(key: str, data: bytes) -> None:
        if "vocabulary" in key and not tier.blanked > 1:
            other.blank(tier, {WORD.id: np.array([2], np.int32)})
        write(key, data)

    monkeypatch.setattr(storage, "write", late)
    vocabulary.blank(tier, {WORD.id: np.array([1], np.int32)})
    assert tier.blanked == 2
    assert b"private words" not in bytes_of(storage)
    assert b"secret words" not in bytes_of(storage)


def test_what_one_that_died_put_back_is_erased_by_the_next(
    storage: Storage, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had read the chunk before another erased it, and died before it looked again."""
    vocabulary.encode(WORD, words("keep", "private words", "secret words", "hidden words"))
    other, tier, write = Vocabulary(storage, SCHEMA), Tier(), storage.write

    def late(key: str, data: bytes) -> None:
        monkeypatch.setattr(storage, "write", write)
        other.blank(tier, {WORD.id: np.array([2], np.int32)})
        write(key, data)
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "write", late)
    with pytest.raises(KeyboardInterrupt):
        vocabulary.blank(tier, {WORD.id: np.array([1], np.int32)})
    put_back = storage.read(keys.vocabulary_chunk(WORD.id, 0))
    assert b"secret words" in put_back
    Vocabulary(storage, SCHEMA).erase_left()
    assert b"secret words" not in bytes_of(storage)
    storage.write(keys.vocabulary_chunk(WORD.id, 0), put_back)  # those who hold it as null see to it, too
    other.blank(tier, {WORD.id: np.array([3], np.int32)})
    assert b"words" not in bytes_of(storage)


def test_chunks_that_a_crash_left_are_erased_by_the_next(storage: Storage, vocabulary: Vocabulary) -> None:
    vocabulary.encode(HASH, pa.array([2**64 - 1, 7], pa.uint64()))

    class Dying(Tier):
        def blank(self, candidates: dict[int, np.ndarray], put: object, still: object = None) -> int | None:
            super().blank(candidates, put)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vocabulary.blank(Dying(), {HASH.id: np.array([0], np.int32)})
    assert b"\xff" * 8 in bytes_of(storage)
    reader = Vocabulary(storage, SCHEMA, read_only=True)
    reader.refresh(HASH.id)
    assert reader.values(HASH.id).to_pylist() == [None, 7]
    Vocabulary(storage, SCHEMA).erase_blanked()
    assert b"\xff" * 8 not in bytes_of(storage)
    assert Vocabulary(storage, SCHEMA).values(HASH.id).to_pylist() == [None, 7]


def test_a_null_that_nobody_blanked_is_damage(storage: Storage, vocabulary: Vocabulary) -> None:
    vocabulary.encode(WORD, words("a", "b"))
    vocabulary.blank(Tier(), {WORD.id: np.array([0], np.int32)})
    storage.delete([keys.blanked(0)])
    with pytest.raises(CorruptionError, match="null, and was never blanked"):
        Vocabulary(storage, SCHEMA).values(WORD.id)


def test_a_schema_that_gained_a_trait_is_followed(storage: Storage, vocabulary: Vocabulary) -> None:
    after = SCHEMA.altered(add=pa.schema([("city", pa.string())]))
    vocabulary.follow(after)
    assert vocabulary.encode(after["city"], words("Oslo")).values.tolist() == [0]
    assert vocabulary.encode(WORD, words("Oslo", "Bergen")).values.tolist() == [0, 1]


def test_a_schema_is_followed_while_another_thread_goes_through_the_lists(
    storage: Storage, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary.encode(WORD, words("a"))
    after = SCHEMA.altered(add=pa.schema([("city", pa.string())]))
    vocabulary.put_blanked(0, {WORD.id: [0]})
    write = storage.write

    def follow_first(key: str, data: bytes) -> None:
        thread = threading.Thread(target=vocabulary.follow, args=[after])
        thread.start()
        thread.join()
        write(key, data)

    monkeypatch.setattr(storage, "write", follow_first)
    vocabulary.erase_blanked()
    assert vocabulary.values(after["city"].id).equals(words())
