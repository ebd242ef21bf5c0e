"""Steps deal every position to exactly one rank, whoever takes over and whenever."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from latewood.errors import SchemaError
from latewood.loading.steps import Share, SizedSteps, Step


def all_ranks(total: int, position: int, batch_size: int, world_size: int) -> list[list[Step]]:
    return [list(SizedSteps(Share(rank, world_size), batch_size, total).steps(position)) for rank in range(world_size)]


@given(st.integers(0, 60), st.integers(1, 7), st.integers(1, 5), st.data())
def test_no_example_is_lost_or_doubled_even_if_the_ranks_change(
    total: int, batch_size: int, world_size: int, data: st.DataObject
) -> None:
    seen: list[int] = []
    position = 0
    while position < total:
        ranks = all_ranks(total, position, batch_size, world_size)
        assert len({len(steps) for steps in ranks}) == 1, "a rank makes another number of steps"
        done = data.draw(st.integers(1, len(ranks[0])))
        for steps in ranks:
            assert {step.after for step in steps[:done]} == {step.after for step in ranks[0][:done]}
            seen += [at for step in steps[:done] for at in range(step.start, step.stop)]
        position = ranks[0][done - 1].after
        batch_size, world_size = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 5))
    assert sorted(seen) == list(range(total))


@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 5))
def test_all_ranks_have_batches_of_the_same_size(total: int, batch_size: int, world_size: int) -> None:
    for steps in zip(*all_ranks(total, 0, batch_size, world_size), strict=True):
        assert len({len(step) for step in steps}) == 1
        assert 1 <= len(steps[0]) <= batch_size
        for step in steps:
            assert all(at in range(step.after - step.first) for at in step.padding())
            assert len(step.padding()) == step.pad
    assert sum(step.pad for step in steps) < world_size


def test_one_rank_is_never_padded_and_its_last_batch_is_short() -> None:
    steps = list(SizedSteps(Share(), 4, 10).steps())
    assert [(step.start, step.stop, step.pad) for step in steps] == [(0, 4, 0), (4, 8, 0), (8, 10, 0)]


def test_drop_leaves_an_incomplete_step_out() -> None:
    steps = SizedSteps(Share(1, 2, "drop"), 4, 23)
    assert [(step.start, step.stop, step.pad) for step in steps.steps()] == [(4, 8, 0), (12, 16, 0)]
    assert steps.count() == 2
    assert list(steps.steps(position=16)) == []


@pytest.mark.parametrize(
    "arguments",
    [{"rank": 2, "world_size": 2}, {"rank": -1}, {"world_size": 0}, {"remainder": "keep"}],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(SchemaError):
        Share(**arguments)  # type: ignore[arg-type]
