"""Rows of the ledger come back from Parquet exactly as they were."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from cluster.ledger.reading import Device
from cluster.ledger.rows import (
    energy_parquet,
    energy_table,
    footer_of,
    metered_mj,
)
from cluster.ledger.schema import ENERGY_SCHEMA
from cluster.ledger.sink import Origin
from cluster.ledger.usage import EnergyRow, Interval, Work
from tests.support.energyfactory import ANCHOR, START

ORIGIN = Origin("cluster", "host", ANCHOR)
INT64 = st.integers(0, 2**63 - 1)
INT32 = st.integers(0, 2**31 - 1)
TEXT = st.text(st.characters(codec="utf-8"), max_size=5)

devices = st.builds(
    Device,
    hw_id=TEXT,
    hw_type=st.sampled_from(["gpu", "cpu"]),
    hw_name=TEXT,
    zone=st.sampled_from(["gpu", "module", "package", "dram", "host"]),
    hw_parent=st.none() | TEXT,
    driver_version=st.none() | TEXT,
    power_limit_mw=st.none() | INT64,
)
intervals = st.builds(
    lambda start_ns, length_ns, **rest: Interval(
        start_ns=start_ns, end_ns=start_ns + length_ns, **rest
    ),
    start_ns=st.integers(-(10**15), 10**18),
    length_ns=st.integers(1, 10**15),
    device=devices,
    epoch=INT64,
    energy_mj=st.none() | INT64,
    low_mj=st.none() | INT64,
    high_mj=st.none() | INT64,
    quality=st.sampled_from(["measured_counter", "measured_power", "estimated"]),
    method=TEXT,
    counter_updates=st.none() | INT64,
)
works = st.builds(
    Work,
    job_id=st.none() | TEXT,
    shard=st.none() | INT64,
    model_rev=st.none() | TEXT,
    steps=st.none() | INT32,
    width=st.none() | INT32,
    height=st.none() | INT32,
    precision=st.none() | st.sampled_from(["fp32", "bf16", "fp16"]),
)
rows = st.builds(
    EnergyRow,
    interval=intervals,
    bucket=st.sampled_from(["job", "overhead", "wasted", "idle", "foreign", "gap"]),
    energy_mj=st.none() | INT64,
    active_mj=st.none() | INT64,
    low_mj=st.none() | INT64,
    high_mj=st.none() | INT64,
    shared=st.booleans(),
    attempt_id=st.none() | TEXT,
    work=works,
    images=st.none() | INT64,
    batch_size=st.none() | INT32,
)


@given(st.lists(rows, max_size=8), st.booleans())
def test_a_round_trip_is_exact(written: list[EnergyRow], closed: bool) -> None:
    table = energy_table(written, ORIGIN)
    metered = metered_mj(written)
    data = energy_parquet(table, metered, closed=closed)
    found = pq.read_table(pa.BufferReader(data))
    assert found.schema.equals(ENERGY_SCHEMA, check_metadata=False)
    assert sorted(map(repr, found.to_pylist())) == sorted(map(repr, table.to_pylist()))
    assert footer_of(found.schema.metadata) == (metered, closed)
    for row, stored in zip(written, table.to_pylist(), strict=True):
        assert stored["duration_ns"] == row.interval.duration_ns
        assert stored["ts_start"] - START == timedelta(microseconds=row.interval.start_ns // 1000)
        assert stored["energy_mj"] == row.energy_mj
        assert stored["energy_active_mj"] == row.active_mj
        assert stored["energy_low_mj"] == row.low_mj
        assert stored["energy_high_mj"] == row.high_mj
        assert (stored["quality"] == "missing") == (row.energy_mj is None)
        for name in ("bucket", "shared", "attempt_id", "images", "batch_size"):
            assert stored[name] == getattr(row, name)
        for name in ("job_id", "shard", "steps", "width", "height", "precision", "model_rev"):
            assert stored[name] == getattr(row.work, name)


@given(st.lists(st.integers(-(10**18), 10**18), min_size=2, max_size=9, unique=True))
def test_stamps_of_consecutive_times_do_not_overlap(times_ns: list[int]) -> None:
    stamps = [ANCHOR.utc_at(at_ns) for at_ns in sorted(times_ns)]
    assert stamps == sorted(stamps)
    for at_ns in times_ns:
        assert 0 <= at_ns - ANCHOR.monotonic_at(ANCHOR.utc_at(at_ns)) < 1000
