"""Rows of the next shard are there when the device gets to it."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import Fatal
from cluster.pipeline.rows_ahead import RowsAhead
from cluster.storage.job_rows import CLASS_COLUMN, carried_schema, rows_of
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.types import Inputs, Workload
from tests.support import jobfactory
from tests.support.counting_store import CountingStore

JOB = jobfactory.workload(inputs=Inputs(digest="d", part_rows=9, columns=("x",)))


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """Rows of JOB: twenty, in three parts, in row groups of four."""
    store = open_store(str(tmp_path))
    for number, start in enumerate(range(0, 20, 9)):
        places = list(range(start, min(start + 9, 20)))
        table = pa.table({CLASS_COLUMN: [n % 3 for n in places], "x": places})
        sink = io.BytesIO()
        pq.write_table(table, sink, row_group_size=4)
        store.put(JobLayout("job").input_part("d", number), sink.getvalue())
    return store


@pytest.mark.parametrize(("start", "stop"), [(0, 20), (3, 5), (8, 10), (9, 18), (17, 20), (4, 4)])
def test_any_run_of_rows_is_read(store: ObjectStore, start: int, stop: int) -> None:
    rows = rows_of(store, JOB, start, stop)
    assert rows.class_ids.tolist() == [n % 3 for n in range(start, stop)]
    assert rows.carried is not None
    assert rows.carried["x"].to_pylist() == list(range(start, stop))
    assert (rows.seeds, rows.indices) == (None, None)
    assert carried_schema(store, JOB) == pa.schema([("x", pa.int64())])


def test_shards_in_turn_are_read_once(store: ObjectStore) -> None:
    counting = CountingStore(store)
    ahead = RowsAhead(counting, JOB)
    found = [n for shard in JOB.shards() for n in ahead.take(shard).class_ids.tolist()]
    assert found == [n % 3 for n in range(20)]
    assert counting.calls.total() == 5, "one of each part that a shard lies in"


def test_shards_in_any_order_have_their_rows(store: ObjectStore) -> None:
    ahead = RowsAhead(store, JOB)
    for index in (2, 0, 1, 3, 3, 2):
        shard = JOB.shard(index)
        expected = [n % 3 for n in range(shard.start, shard.stop)]
        assert ahead.take(shard).class_ids.tolist() == expected


def test_what_could_not_be_read_ahead_is_read_again(store: ObjectStore) -> None:
    ahead = RowsAhead(store, JOB)
    key = JobLayout("job").input_part("d", 1)
    data = store.get(key)
    store.delete(key)
    ahead.take(JOB.shard(0))
    with pytest.raises(Fatal, match="submit it again"):
        ahead.take(JOB.shard(1))
    store.put(key, data)
    assert len(ahead.take(JOB.shard(1)).class_ids) == 6


def test_other_jobs_read_nothing() -> None:
    job: Workload = jobfactory.workload()
    rows = RowsAhead(None, job).take(job.shard(1))  # type: ignore[arg-type]
    assert rows.class_ids.tolist() == job.classes_of(6, 12).tolist()
