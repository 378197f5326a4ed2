"""Commit records in columns: the same records back, the same sums."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.energy import sum_energy
from cluster.storage.commit_table import (
    Unfit,
    commit_rows,
    energy_of,
    images_of,
    merged,
    objects_of,
    records_of,
    table_of,
)
from cluster.storage.schemas import COMMIT_SCHEMA
from cluster.types import MISSING_ENERGY, CommitRecord, DataObject, Energy

big = st.integers(0, 2**63 - 1)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
methods = st.sampled_from(["none", "nvml", "rapl", "nvml+rapl"])
energies = st.builds(
    Energy,
    energy_mj=st.none() | st.just(0) | big,
    low_mj=st.none() | big,
    high_mj=st.none() | big,
    quality=st.sampled_from(["measured_counter", "measured_power", "estimated", "missing"]),
    method=methods,
)
objects = st.builds(DataObject, key=text, size_bytes=big, sha256=text, rows=big)
zones = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])
records = st.builds(
    CommitRecord,
    job_id=text,
    shard=st.integers(0, 50),
    start=big,
    stop=st.integers(1, 2**63 - 1),
    attempt_id=text,
    token=text,
    objects=st.lists(objects, max_size=3).map(tuple),
    rows=big,
    energy=energies,
    model_rev=text,
    hardware=text,
    host_name=text,
    generate_s=st.floats(allow_nan=False),
    committed_at=st.datetimes(timezones=zones),
)
of_shards = st.lists(records, max_size=8, unique_by=lambda record: record.shard)


@given(of_shards)
def test_columns_hold_every_field_exactly(made: list[CommitRecord]) -> None:
    ordered = sorted(made, key=lambda record: record.shard)
    table = table_of(made)
    assert list(records_of(table)) == ordered
    assert images_of(table) == sum(record.rows for record in made)
    vouched = [(data.key, data.size_bytes) for record in ordered for data in record.objects]
    assert list(objects_of(table)) == vouched


@given(of_shards)
def test_sums_of_columns_are_those_of_records(made: list[CommitRecord]) -> None:
    """Unknown stays unknown, quality is the worst, bounds are kept, and no sum overflows."""
    assert energy_of(table_of(made)) == sum_energy(record.energy for record in made)


@given(of_shards, st.integers(0, 8))
def test_tables_are_merged_by_shard(made: list[CommitRecord], cut: int) -> None:
    assert merged([table_of(made[:cut]), table_of(made[cut:])]).equals(table_of(made))


def one(**changes: object) -> CommitRecord:
    fields: dict[str, object] = {
        "job_id": "j", "shard": 0, "start": 0, "stop": 1, "attempt_id": "a", "token": "t",
        "objects": (), "rows": 1, "energy": MISSING_ENERGY,
        "model_rev": "r", "hardware": "cpu", "host_name": "h", "generate_s": 0.5,
        "committed_at": datetime(2026, 1, 1, tzinfo=UTC),
    }  # fmt: skip
    return CommitRecord.model_validate(fields | changes)


@pytest.mark.parametrize("changes", [{"rows": 2**63}, {"committed_at": datetime(2026, 1, 1)}])
def test_what_columns_cannot_hold_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(Unfit):
        table_of([one(**changes)])


def test_rows_of_the_sql_view() -> None:
    data = [DataObject(key=f"k{i}", size_bytes=10 + i, sha256="0", rows=1) for i in range(3)]
    energy = Energy(energy_mj=1500, low_mj=1000, high_mj=None, quality="estimated", method="m")
    table = table_of(
        [one(objects=data[:2], energy=energy), one(shard=1), one(shard=2, objects=data[2:])]
    )
    rows = commit_rows(table)
    assert rows.schema == COMMIT_SCHEMA
    assert rows["keys"].to_pylist() == [["k0", "k1"], [], ["k2"]]
    assert rows["size_bytes"].to_pylist() == [21, 0, 12]
    assert rows["energy_j"].to_pylist() == [1.5, None, None]
    assert rows["energy_low_j"].to_pylist() == [1.0, None, None]
    assert rows["energy_high_j"].null_count == 3
    assert rows["energy_quality"].to_pylist() == ["estimated", "missing", "missing"]
