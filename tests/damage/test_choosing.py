"""Picking between guards what no damage is needed for: it reads ahead of where it is."""

import numpy as np
from choosing import Room
from fuzz import READ, run
from guarded import Region
from reading import OneFile

from forged_shards import ForgedShard
from latewood.columns import Column
from latewood.stripes import Output, Shard
from latewood.stripes.layout import BUILT_IN
from latewood.stripes.pick import group_rows, pick_columns
from made_shards import run_of, tables_of, write_shard


def test_users_of_the_same_number_in_two_shards_are_not_taken_for_one() -> None:
    """The groups ahead are of stripe 600 and more of one, and the other has one stripe."""
    regions, shards = [Region(1 << 20), Region(1 << 21)], []
    for region, count in zip(regions, (1, 256 * 640), strict=True):
        times = [Column(np.arange(count) * 1_000 + count), Column(np.zeros(count, np.int64))]
        data = write_shard(BUILT_IN, run_of({1: [*times, Column(np.zeros(count, np.int32))]}))[0]
        file = region.file(ForgedShard(data).seal(aligned=True))
        shards.append(Shard.open(OneFile(file), "shard"))  # type: ignore[arg-type]
    tables, room = tables_of(*shards), Room()
    rows = np.concatenate([[0], np.arange(600, 640) * 256 + 7])
    shard, user, offsets = np.array([0, 1]), np.array([0, 0]), np.array([0, 1, len(rows)])

    def case(number: int) -> int:
        picks = group_rows(tables, shard, user, offsets, rows, room.groups_for)
        times = np.zeros(len(rows), np.int64)
        pick_columns(tables, picks, [Output(0, times)])
        assert times.tolist() == [1, *(rows[1:] * 1_000 + 256 * 640).tolist()]
        return READ

    assert run(case, seconds=120, stop=1, tell=0) == []
