"""Data sets as a task: given a user's history, which item comes next? Split by time, as a served model would meet it.

Every event is a request for what precedes it (`lw.anchors`), and its item the label; or, to train on, a target in a whole
sequence (`lw.sequences`). What is trained on had happened and was known when the test period began: labels, histories, the
vocabulary, and with it the choice of what can be predicted at all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import latewood as lw
from latewood.demo.purchases import load_purchases

TEST_SHARE = 0.1  # of the requests: the latest
MIN_HISTORY, MIN_COUNT = 5, 5
MICROSECONDS = 1_000_000  # per second
ROW, SEEN = "row", "seen"  # features of every example: its request's row, and how many events its history has in all


@dataclass(frozen=True, slots=True)
class Task:
    """Requests and examples of them, whose feature `item` came next, and the vocabulary of what can come."""

    store: lw.Store
    events: pa.Table  # as they were ingested: user_id, event_ts, ingest_ts, traits
    item: str  # the trait
    vocab: lw.Vocab
    begins: int  # the test period, in µs
    requests: pa.Table  # as `lw.anchors` gives them, of both parts
    train: pa.Table
    test: pa.Table

    def sequences(self, chunk: int) -> pa.Table:
        """To train on too: every event before the test period once. Args: chunk: at most so many in one example."""
        return lw.sequences(self.store, (0, self.begins), chunk=chunk, min_history=MIN_HISTORY)


def git_events(folder: Path, path: Path, *, train: int, test: int) -> Task:
    """Which file an author touches next. Args: path: commits by author and file, with both clocks, as Parquet."""
    table = pq.read_table(path)
    times = {name: pa.array(table[column].to_numpy() * MICROSECONDS) for name, column in _GIT_TIMES.items()}
    events = pa.table({"user_id": table["user_id"], **times, "item_id": table["item_id"], "action": table["action"]})
    return _make(folder, events, "item_id", train, test)


def complete_journey(folder: Path, days: int | None = None, *, train: int, test: int) -> Task:
    """Which product a household buys next. Args: days: only the year's first so many."""
    table = load_purchases(days).events.select(["user_id", "event_ts", "product_id", "department", "paid_cents"])
    return _make(folder, table.append_column("ingest_ts", table["event_ts"]), "product_id", train, test)


TASKS: dict[str, Callable[..., Task]] = {"git-events": git_events, "completejourney": complete_journey}
_GIT_TIMES = {"event_ts": "ts", "ingest_ts": "ingest_ts"}


def _make(folder: Path, events: pa.Table, item: str, train: int, test: int) -> Task:
    """Args: train, test: at most so many examples of each, drawn at random."""
    columns = {"user": "user_id", "time": "event_ts", "ingest_time": "ingest_ts"}
    store = lw.ingest(events, folder / "store", shards=2, quiet=True, **columns)
    anchors = lw.anchors(store, min_history=MIN_HISTORY).select(["user_id", "request_ts", item, "anchor"])
    begins = int(np.quantile(anchors["request_ts"].cast(pa.int64()).to_numpy(), 1 - TEST_SHARE))
    vocab = store.vocab(item, until=begins, min_count=MIN_COUNT)
    split = lw.split_by_time(anchors.filter(pc.is_in(anchors[item], vocab.values)), test=begins)
    known = pc.less(pc.struct_field(split.train["anchor"], "ingest_ts").cast(pa.int64()), begins)
    parts = [_draw(part, count) for part, count in ((split.train.filter(known), train), (split.test, test))]
    requests = pa.concat_tables(parts)
    requests = requests.append_column(ROW, pa.array(np.arange(len(requests))))
    examples = lw.backfill(store, requests, complete=True)
    examples = examples.append_column(SEEN, pc.struct_field(examples["uih"], "length"))  # a bulk load leaves no recents
    first = len(parts[0])
    return Task(store, events, item, vocab, begins, requests, examples.slice(0, first), examples.slice(first))


def _draw(requests: pa.Table, count: int) -> pa.Table:
    chosen = np.random.default_rng(0).permutation(len(requests))[:count]
    return requests.take(pa.array(np.sort(chosen)))
