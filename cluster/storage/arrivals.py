"""A fleet's forecast of work, kept in the store for its next coordinator.

One object for each Ray cluster; the last writer wins. A lost update does no harm: the forecast
learns again.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat

from cluster.errors import NotFound
from cluster.scheduler.forecast import BINS, Bin, Habits, Kind
from cluster.scheduler.request import DemandKey, Objective
from cluster.storage.commit import parse_record
from cluster.storage.layout import arrivals_key
from cluster.storage.object_store import ObjectStore
from cluster.types import DEFAULT_ENCODING, SCHEMA_VERSION, Record

BinRow = tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat, NonNegativeFloat]


class KindRecord(Record):
    """One kind of work: (days, images, squares, slack) of each bin, from midnight UTC on; and of
    the open one until now. encoding: the default one is left out, as versions without it did."""

    model: str = Field(min_length=1)
    objective: Objective
    encoding: str = Field(default=DEFAULT_ENCODING, exclude_if=lambda key: key == DEFAULT_ENCODING)
    bins: Annotated[tuple[BinRow, ...], Field(min_length=BINS, max_length=BINS)]
    today: BinRow


class ArrivalsRecord(Record):
    """``fleet/arrivals/<cluster>.json``. open_bin: counted since 1970."""

    schema_version: Literal[1] = SCHEMA_VERSION
    open_bin: int
    kinds: tuple[KindRecord, ...]


def save_habits(store: ObjectStore, cluster_id: str, habits: Habits) -> None:
    """Save them for the cluster's next coordinator. Raises what the store raises."""
    kinds = [
        KindRecord(
            model=key.model,
            objective=key.objective,
            encoding=key.encoding,
            bins=tuple(kind.bins),
            today=kind.today,
        )
        for key, kind in habits.kinds.items()
    ]
    record = ArrivalsRecord(open_bin=habits.open_bin, kinds=tuple(kinds))
    store.put(arrivals_key(cluster_id), record.model_dump_json().encode())


def load_habits(store: ObjectStore, cluster_id: str) -> Habits | None:
    """The habits saved for the cluster; None if there are none. Raises Fatal if the record is
    damaged, and what the store raises."""
    key = arrivals_key(cluster_id)
    with suppress(NotFound):
        record = parse_record(ArrivalsRecord, key, store.get(key))
        kinds = {
            DemandKey(kind.model, kind.objective, kind.encoding): Kind(
                [Bin(*row) for row in kind.bins], Bin(*kind.today)
            )
            for kind in record.kinds
        }
        return Habits(record.open_bin, kinds)
    return None
