"""latewood: store every user history once, log a pointer, rebuild the exact sequence while training.

The public names, sorted, and nothing else. They are imported when first used, so that `import latewood` costs little and
numba is loaded only where kernels run.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latewood import testing as testing
    from latewood.batch import Batch as Batch
    from latewood.batch import SharedBatch as SharedBatch
    from latewood.capture import Capture as Capture
    from latewood.capture import anchors as anchors
    from latewood.capture import backfill as backfill
    from latewood.capture import groups as groups
    from latewood.capture import requests_in as requests_in
    from latewood.capture import sequences as sequences
    from latewood.capture import target_mask as target_mask
    from latewood.conditions import col as col
    from latewood.errors import ConflictError as ConflictError
    from latewood.errors import CorruptionError as CorruptionError
    from latewood.errors import ExpiredError as ExpiredError
    from latewood.errors import LatewoodError as LatewoodError
    from latewood.errors import LeakageError as LeakageError
    from latewood.errors import PointerError as PointerError
    from latewood.errors import SchemaError as SchemaError
    from latewood.errors import ScrubbedError as ScrubbedError
    from latewood.errors import StoreNotFoundError as StoreNotFoundError
    from latewood.examples import ExampleLog as ExampleLog
    from latewood.examples import FatRows as FatRows
    from latewood.examples import write_fat_rows as write_fat_rows
    from latewood.explain import Verdict as Verdict
    from latewood.explain import why as why
    from latewood.exporting import export_events as export_events
    from latewood.exporting import export_fat_rows as export_fat_rows
    from latewood.forgetting import ScrubReceipt as ScrubReceipt
    from latewood.immutable import Generation as Generation
    from latewood.immutable import Pin as Pin
    from latewood.ingestion import ingest as ingest
    from latewood.items import Items as Items
    from latewood.loading import Loader as Loader
    from latewood.materialize import Materializer as Materializer
    from latewood.migration import ShadowReport as ShadowReport
    from latewood.migration import shadow as shadow
    from latewood.mutable import AppendReceipt as AppendReceipt
    from latewood.projection import Projection as Projection
    from latewood.projection import Stream as Stream
    from latewood.projection import last as last
    from latewood.rebuilding import rebuild as rebuild
    from latewood.retention import Retention as Retention
    from latewood.schema import Schema as Schema
    from latewood.sealing import PurgeReport as PurgeReport
    from latewood.sealing import SealReport as SealReport
    from latewood.sealing import purge_log as purge_log
    from latewood.sealing import seal as seal
    from latewood.splits import Split as Split
    from latewood.splits import split_by_time as split_by_time
    from latewood.splits import split_by_user as split_by_user
    from latewood.store import Store as Store
    from latewood.verification import VerifyReport as VerifyReport
    from latewood.verification import verify as verify
    from latewood.vocab import Vocab as Vocab

_HOME = {
    "AppendReceipt": "mutable",
    "Batch": "batch",
    "Capture": "capture",
    "ConflictError": "errors",
    "CorruptionError": "errors",
    "ExampleLog": "examples",
    "ExpiredError": "errors",
    "FatRows": "examples",
    "Generation": "immutable",
    "Items": "items",
    "LatewoodError": "errors",
    "LeakageError": "errors",
    "Loader": "loading",
    "Materializer": "materialize",
    "Pin": "immutable",
    "PointerError": "errors",
    "Projection": "projection",
    "PurgeReport": "sealing",
    "Retention": "retention",
    "Schema": "schema",
    "SealReport": "sealing",
    "SchemaError": "errors",
    "ScrubReceipt": "forgetting",
    "ScrubbedError": "errors",
    "ShadowReport": "migration",
    "SharedBatch": "batch",
    "Split": "splits",
    "Store": "store",
    "StoreNotFoundError": "errors",
    "Stream": "projection",
    "Verdict": "explain",
    "VerifyReport": "verification",
    "Vocab": "vocab",
    "anchors": "capture",
    "backfill": "capture",
    "col": "conditions",
    "export_events": "exporting",
    "export_fat_rows": "exporting",
    "groups": "capture",
    "ingest": "ingestion",
    "last": "projection",
    "purge_log": "sealing",
    "rebuild": "rebuilding",
    "requests_in": "capture",
    "seal": "sealing",
    "sequences": "capture",
    "shadow": "migration",
    "split_by_time": "splits",
    "split_by_user": "splits",
    "target_mask": "capture",
    "testing": "",
    "verify": "verification",
    "why": "explain",
    "write_fat_rows": "examples",
}

__all__ = sorted(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'latewood' has no attribute {name!r}")
    home = _HOME[name]
    value = getattr(import_module(f"latewood.{home}"), name) if home else import_module(f"latewood.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
