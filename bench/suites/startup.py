"""Suite `startup`: how long a process takes before it can work.

Every figure is processor time in a process of its own, measured inside it, by turns; the files are in the page cache and
the kernels in numba's cache, as after `latewood warmup`. First the imports: `import latewood` alone, which loads the rest
when it is used, beside `import pyarrow` and `import numba`. Then the kernels: with all imported that others have written
(pyarrow with its data sets, which take pandas along where that is installed; numba), a process imports the parts of
latewood that a trainer uses, which loads kernels of one type, opens a store and makes an epoch of one batch; and makes
another, which has all it needs. The import, and the difference of the two epochs, are what loading took, to be compared
with numba's own import. Much of numba is imported only with the first kernel, whoever's that is: hence the last line.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import latewood as lw
from bench import sources
from bench.digests import digest, require_equal
from bench.histories import TRAITS, draw_distinct
from bench.report import Line, Results, at_most, compare
from bench.session import Session

OURS, PYARROW, NUMBA = "import latewood", "import pyarrow", "import numba"
NUMBA_USED = "import numba, an empty kernel"
KERNELS, ON_IMPORT, IN_BATCH = "kernels, until a first batch", "of it, importing modules", "of it, in the batch"
IMPORT_TARGET = at_most(2)  # times pyarrow's
KERNELS_TARGET = at_most(1.25)  # times numba's: about the same
MAX_LEN = 300
CLOCK = "processor time in processes of their own, by turns, medians"

_IMPORT = """
import time
began = time.process_time()
import {module}
print([time.process_time() - began])
"""
_EMPTY_KERNEL = """
import time
began = time.process_time()
import numba
numba.njit(lambda: None)()
print([time.process_time() - began])
"""
_FIRST_BATCH = """
import time
import lmdb, numba, numpy, obstore, pyarrow, pyarrow.compute, pyarrow.dataset, pyarrow.parquet, xxhash
began = time.process_time()
import latewood as lw
import pyarrow.parquet as pq
def make():
    began = time.process_time()
    with lw.Store.open({store!r}, read_only=True) as store:
        projection = lw.Projection(max_len={max_len})
        for batch in lw.Loader(store, {examples!r}, projection, batch_size=64, prefetch=0):
            pass
    return time.process_time() - began
lw.Store, lw.Loader, lw.Projection
imported = time.process_time() - began
first, second = make(), make()
print([imported, first - second])
"""


def run(session: Session, folder: Path) -> Results:
    """Compare the batch that is made, then start processes in turn."""
    settings, histories = session.settings, session.histories
    requests = draw_distinct(histories, min(64, histories.user_count), 1)
    with lw.ExampleLog(folder / "examples", days=36_500) as log:
        log.append(sources.backfill(session.store, sources.requests_table(histories, requests)))
    (batch,) = lw.Loader(session.store, str(folder / "examples"), lw.Projection(max_len=MAX_LEN), order="user")
    at = batch.features["example"].to_numpy()
    start, stop = requests.rows(histories, MAX_LEN)
    truth = digest(*sources.cut(histories, start[at], stop[at]), tuple(TRAITS))
    require_equal(digest(batch.offsets, batch.values, tuple(TRAITS)), truth, tuple(TRAITS), "Loader")
    scripts = {
        OURS: _IMPORT.format(module="latewood"),
        PYARROW: _IMPORT.format(module="pyarrow"),
        NUMBA: _IMPORT.format(module="numba"),
        NUMBA_USED: _EMPTY_KERNEL,
        KERNELS: _FIRST_BATCH.format(store=str(session.store.path), examples=str(folder / "examples"), max_len=MAX_LEN),
    }
    took: dict[str, list[list[float]]] = {name: [] for name in scripts}
    for number in range(settings.passes + 1):
        for name, script in scripts.items():
            session.tell(f"startup: pass {number} of {settings.passes}: {name}")
            seconds = _seconds(script)
            if number:  # the first pass fills caches, also numba's
                took[name].append(seconds)
    return Results(_lines(took), len(batch), CLOCK)


def _lines(took: dict[str, list[list[float]]]) -> list[Line]:
    """Args: took: parts of every pass, in seconds."""
    ms = {name: 1e3 * median(map(sum, parts)) for name, parts in took.items()}
    ms[ON_IMPORT], ms[IN_BATCH] = (1e3 * median(part) for part in zip(*took[KERNELS], strict=True))
    imports = {name: ms[name] for name in (OURS, PYARROW)}
    kernels = {name: ms[name] for name in (KERNELS, ON_IMPORT, IN_BATCH, NUMBA, NUMBA_USED)}
    return [
        *compare("imports", imports, "ms", PYARROW, targets={OURS: IMPORT_TARGET}),
        *compare("kernels from a warm cache", kernels, "ms", NUMBA, targets={KERNELS: KERNELS_TARGET}),
    ]


def _seconds(script: str) -> list[float]:
    """What a process says that its parts took. Raises: RuntimeError: it failed, with what it said."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    if ended.returncode:
        raise RuntimeError(f"a process that was to be timed failed: {ended.stderr.strip()}")
    parts: list[float] = json.loads(ended.stdout)
    return parts
