"""What the values of columns are taken for: by vocabs and by items, which share an index."""

import numpy as np
import pyarrow as pa
import pytest

import latewood as lw
from item_world import one_history
from latewood.batch import SharedBatch
from latewood.vocab import Vocab


def test_what_a_narrower_type_cannot_hold_is_unknown() -> None:
    vocab = Vocab("item", pa.array([5, 7], pa.int8()), np.array([2, 1]))
    for type_ in (pa.int16(), pa.int64(), pa.uint64()):
        assert vocab.encode(pa.array([7, None, 300, 5], type_)).tolist() == [3, 1, 1, 2]
    assert vocab.encode_history(one_history([-300, 5], pa.int64())).tolist() == [1, 2]
    items = lw.Items(pa.table({"item": pa.array([1, 2**63], pa.uint64()), "price": [1, 2]}), key="item")
    assert items.look_up([-(2**63), 1])["price"].to_pylist() == [None, 1]


def test_values_of_another_kind_are_refused() -> None:
    numbers = Vocab("item", pa.array([1, 5]), np.array([2, 1]))
    words = Vocab("item", pa.array(["1", "5"]), np.array([2, 1]))
    for vocab, values in ((numbers, ["5"]), (numbers, [True]), (numbers, [1, "a"]), (words, [5]), (words, [object()])):
        with pytest.raises(lw.SchemaError, match="'item'"):
            vocab.encode(values)


def test_histories_of_nothing_but_nulls_are_unknown() -> None:
    """Also where no value was ever stored, so that the dictionary has none; and where no event is left."""
    vocab, nothing = Vocab("item", pa.array(["a"]), np.array([1])), pa.array([], pa.string())
    assert vocab.encode_history(one_history([0, 0], pa.string(), nothing, [True, True])).tolist() == [1, 1]
    assert vocab.encode_history(one_history([], pa.string(), nothing, [])).tolist() == []


def test_what_no_example_of_a_shared_batch_shows_need_be_no_code() -> None:
    vocab = Vocab("item", pa.array(["a", "b"]), np.array([2, 1]))
    for words, expected in ((["b", "a"], [3, 2]), ([], [1, 1])):
        one = one_history([0, 1, 2**31 - 1, -5], pa.string(), pa.array(words, pa.string()))
        shared = SharedBatch(
            np.zeros(1, np.int64), np.full(1, 2), one.values, {}, one.dictionaries, one.weights, one.features, one.types
        )
        assert vocab.encode_history(shared)[:2].tolist() == expected


def test_two_threads_with_dictionaries_of_their_own_share_an_index() -> None:
    """Before each look at what the index keeps, the other thread has been there."""
    items = lw.Items(pa.table({"item": ["a", "b"], "price": [1, 2]}), key="item")
    first, second = (one_history([0], pa.string(), pa.array([word])) for word in "ab")
    index, others = items._index, [second]

    class Interrupted(type(index)):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> object:
            if others:
                batch = others.pop()
                items.add_to(batch)
                others.append(batch)
            return object.__getattribute__(self, name)

    index.__class__ = Interrupted
    assert items.add_to(first).values["price"].tolist() == [1]


def test_items_come_in_any_layout() -> None:
    keys, words = ["a", "b", "c"], ["x", None, "y"]
    text = [pa.array(words, type_) for type_ in (pa.string(), pa.large_string(), pa.string_view())]
    for key, word in [*zip((pa.array(keys, t.type) for t in text), text, strict=True)]:
        for column in (word, word.cast(pa.string()).dictionary_encode()):
            table = pa.table({"item": key, "word": column, "tags": pa.array([["t"]] * 3, pa.list_(key.type))})
            for source in (table, pa.concat_tables([table.slice(0, 1), table.slice(1)])):
                items = lw.Items(source, key="item")
                assert items.look_up(["c", "z", "a"], ["word"])["word"].to_pylist() == ["y", None, "x"]
                added = items.add_to(one_history([1, 0, 2], pa.string(), pa.array(["b", "c", "z"])), ["word"])
                assert added.column_to_arrow("word").to_pylist() == ["y", None, None]
    table = Vocab("item", pa.array(["a"]), np.array([1])).to_arrow()
    for values in (pa.array(["a"], pa.string_view()), pa.array(["a"]).dictionary_encode()):
        assert lw.Vocab.from_arrow(table.set_column(1, "value", values)).encode(["b", "a"]).tolist() == [1, 2]
