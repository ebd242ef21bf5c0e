"""`python -m trainings.document docs/trainings.md`: the page of results, from all JSON in the folder docs/trainings."""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from trainings.figure import Point, draw
from trainings.lengths import BATCH_SIZE, CHUNK, LEARNING_RATE, LONG
from trainings.results import Entry, Results

METRICS = {"recall": "recall@10", "ndcg": "NDCG@10", "auc": "AUC", "normalized_entropy": "normalized entropy"}
ALL, LONGEST = "all", "long"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page and its figures."""
    parser = argparse.ArgumentParser(prog="python -m trainings.document", description=__doc__)
    parser.add_argument("page", type=Path)
    page = parser.parse_args(arguments).page
    folder = page.with_suffix("")
    entries = dict[str, list[Entry]]()
    for path in sorted(folder.glob("*.json")):
        for kind, found in Results(path).all.items():
            entries.setdefault(kind, []).extend(found)
    sections = [
        _HEAD,
        *map(_machine, entries.get("machine", [])[:1]),
        *_lengths(folder, entries),
        *_parity(entries),
        *_waiting(entries),
        _AGAIN,
    ]
    page.write_text("\n".join(sections))


def _machine(machine: Entry) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"Machine: {machine['processor']}, {machine['cores']} cores, one thread per training. Versions: {versions}.\n"
    )


def _lengths(folder: Path, entries: dict[str, list[Entry]]) -> list[str]:
    """A section for each data set: table, figure, and what it says in a sentence."""
    sections = [_METHOD] if entries.get("lengths") else []
    for about in sorted(entries.get("data", []), key=lambda about: about["key"]["data"]):
        data = about["key"]["data"]
        cells = [cell for cell in entries.get("lengths", []) if cell["key"]["data"] == data]
        if not cells:
            continue
        (folder / f"{data}.svg").write_text(_figure(data, cells))
        names = [name for name in (ALL, LONGEST) if about["popularity"][name]]
        tables = [_table(about, cells, name) for name in names]
        image = f"![recall against length]({folder.name}/{data}.svg)\n"
        findings = "\n".join(f"- {_finding(cells, name)}" for name in names) + "\n"
        sections += [f"### {data}\n", _about(about, cells), findings, image, *tables]
    return sections


def _about(about: Entry, cells: Sequence[Entry]) -> str:
    steps = {cell["steps"] for cell in cells}
    reaching = ", ".join(f"{share:.0%} have {int(length):,} or more" for length, share in about["reaching"].items())
    unfit = f"; {about['unfit']:,} more did not know some event before them, and are none" if about["unfit"] else ""
    return (
        f"{about['events']:,} events, {about['items']:,} items; {about['targets']:,} targets to train on{unfit}; "
        f"{', '.join(f'{count:,}' for count in sorted(steps))} steps. {about['test']:,} requests to be judged on, of "
        f"{about['test_users']:,} users: of their histories {reaching} events.\n"
    )


def _by_length(cells: Sequence[Entry], name: str, metric: str) -> dict[int, list[float]]:
    """The metric of every seed, by length."""
    found = dict[int, list[float]]()
    for cell in sorted(cells, key=lambda cell: (cell["key"]["length"], cell["key"]["seed"])):
        found.setdefault(cell["key"]["length"], []).append(cell[name][metric])
    return found


def _table(about: Entry, cells: Sequence[Entry], name: str) -> str:
    rows = [f"| {_of(name)} | seeds | {' | '.join(METRICS.values())} |", "|---|---:|" + "---:|" * len(METRICS)]
    popular = [f"{about['popularity'][name][metric]:.4f}" for metric in METRICS]
    rows.append(f"| the most frequent items, whoever asks | | {' | '.join(popular)} |")
    figures = [_by_length(cells, name, metric) for metric in METRICS]
    for length, values in figures[0].items():
        rows.append(f"| {length:,} | {len(values)} | {' | '.join(_spread(figure[length]) for figure in figures)} |")
    return "\n".join([*rows, ""])


def _of(name: str) -> str:
    return "all requests" if name == ALL else f"requests with {LONG:,} events or more before them"


def _spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over the seeds."""
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def _finding(cells: Sequence[Entry], name: str) -> str:
    """Every step up in length, by recall, seed by seed: the same seed has the same weights, order and drawn items."""
    seeds = {(cell["key"]["length"], cell["key"]["seed"]): cell[name]["recall"] for cell in cells}
    lengths = sorted({length for length, _ in seeds})
    steps = [_step(seeds, *pair) for pair in itertools.pairwise(lengths)]
    if len(lengths) > 2:
        steps.append("in all, " + _step(seeds, lengths[0], lengths[-1]))
    return f"Recall@10 over {_of(name)}: {'; '.join(steps)}."


def _step(seeds: dict[tuple[int, int], float], shorter: int, longer: int) -> str:
    both = [seed for length, seed in seeds if length == longer and (shorter, seed) in seeds]
    gains = [seeds[longer, seed] - seeds[shorter, seed] for seed in both]
    if not gains:
        return f"{shorter:,} to {longer:,} not measured"
    relative = mean(gains) / mean(seeds[shorter, seed] for seed in both)
    better = sum(gain > 0 for gain in gains)
    return f"{shorter:,} to {longer:,} {relative:+.1%} (better with {better} of {len(gains)} seeds)"


def _figure(data: str, cells: Sequence[Entry]) -> str:
    series = dict[str, list[Point]]()
    for name in (ALL, LONGEST):
        if cells[0][name]:
            found = _by_length(cells, name, "recall").items()
            label = "all requests" if name == ALL else f"{LONG:,} events or more before"
            series[label] = [Point(length, mean(values), min(values), max(values)) for length, values in found]
    title = f"{data}: what longer histories bring (mean, lowest and highest of the seeds)"
    return draw(title, series, ("events of history", "recall@10"))


def _parity(entries: dict[str, list[Entry]]) -> list[str]:
    rows = [
        f"| {key['model']} | {key['data']} | {key['length']:,} | {key['examples']:,} | {run['compared']:,} "
        f"| {run['events']:,} | {run['first_loss']:.4f} to {run['last_loss']:.4f} | **{run['different']}** |"
        for run in entries.get("parity", [])
        for key in (run["key"],)
    ]
    head = [
        "| model | data | length | examples | steps | events | loss | steps that differ |",
        "|---|---|" + "---:|" * 6,
    ]
    return [_PARITY, "\n".join([*head, *rows, ""])] if rows else []


def _waiting(entries: dict[str, list[Entry]]) -> list[str]:
    def row(run: Entry) -> str:
        key, quality = run["key"], " | ".join(f"{run[metric]:.4f}" for metric in METRICS)
        fed = "whole sequences" if key["sequences"] else "requests"
        times = f"{run['elapsed_s']:.0f} s | {run['starvation']:.2%}"
        return (
            f"| {key['model']} | {key['data']} | {fed} | {key['length']:,} | {run['steps']:,} | {times} | {quality} |"
        )

    rows = [row(run) for run in entries.get("runs", [])]
    columns = ["model", "data", "trained on", "length", "steps", "time", "waited", *METRICS.values()]
    head = [f"| {' | '.join(columns)} |", "|---|---|---|" + "---:|" * (len(columns) - 3)]
    return [_WAITING, "\n".join([*head, *rows, ""])] if rows else []


_HEAD = """# Trainings

What the models of `trainings/` show: that late materialization changes nothing but the cost, that the trainer does not wait
for it, and what longer histories bring on real data, be it little. This page is written by `python -m trainings.document`
from the JSON beside it; how to load data for a model of your own is in [training](training.md).
"""

_METHOD = f"""## Quality against the length of histories

One layer of HSTU (width 64, two heads) predicts the next item from the newest events before it. Every length has the same
training examples, whole sequences in chunks of {CHUNK} targets that `lw.sequences` made once; the same targets in the same
order, {BATCH_SIZE} chunks a step, as many steps, the same rate of learning ({LEARNING_RATE:g} at first, 0 at the end), and
the same requests to be judged on. Only the projection's `max_len` differs, and with it how many events the layer looks
at. The rate, and one layer rather than two, were chosen in a few runs of one seed with 64, 256 and 1,024 events, that were
judged on requests of the same test period: the levels are a little flattered, the differences hardly. It is a small
model after one or two passes over small data; a wider and deeper one, trained for longer, may make more of the same
histories.

What is trained on had happened and was known before the last tenth of the requests began; of these a random part is judged,
each against all items. A cell of the tables is the mean over seeds and their standard deviation; a seed draws the weights,
the order, and the items that stand for all others in the loss. Requests with {LONG:,} events or more before them are judged
apart, too: others cannot gain from the longest histories. Normalized entropy is the cross entropy over that of knowing only
how frequent each item is.
"""

_PARITY = """## Parity

The same training is fed twice, with the same weights at the start: from Fat Rows, whose histories the oracle computed from
the raw events without any code of the store, and from latewood. Each step's losses are compared bit by bit.
"""

_WAITING = """## Waiting

How long the trainer waited for batches, as a share of its time after the first batch (`loader.stats().starvation`), and
what the models come to. A request teaches one prediction, a whole sequence one at every event.
"""

_AGAIN = """## Again

```
make lengths EVENTS=git-events.parquet     # both data sets; hours on one core; goes on where it was stopped
make parity                                # an epoch, fed twice
python -m trainings hstu completejourney --length 64 --learning-rate 0.003 --json docs/trainings/runs.json
python -m trainings.document docs/trainings.md
```

completejourney is installed with the developer's packages. git-events are commits by author and file, a Parquet file with
the columns `user_id`, `item_id`, `action`, `ts` (when it was written, in seconds) and `ingest_ts` (when it was committed).
"""

if __name__ == "__main__":
    main()
