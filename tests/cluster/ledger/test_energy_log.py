"""The energy log in real stores: nothing is lost, doubled or read in vain."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from cluster.clock import Anchor
from cluster.errors import Retryable
from cluster.ledger.ledger import Ledger
from cluster.ledger.merge import condensed
from cluster.ledger.reader import (
    EnergyFile,
    closure_error_mj,
    energy_dataset,
    energy_files,
    open_ends,
)
from cluster.ledger.reading import Device, Reading
from cluster.ledger.rows import energy_parquet, energy_table, metered_mj
from cluster.ledger.schema import ENERGY_SCHEMA
from cluster.ledger.sql import query
from cluster.ledger.usage import Use
from cluster.storage.chunks import Chunks
from cluster.storage.layout import ENERGY, EnergyKey, parse_energy_key
from cluster.storage.object_store import ObjectStore
from tests.support import energyfactory as factory
from tests.support.energyfactory import ANCHOR, GPU, START, S
from tests.support.faulty_store import FaultRates, FaultyStore

DAY_S = 24 * 3600


def stored(store: ObjectStore) -> list[dict[str, Any]]:
    table = (
        energy_dataset(store)
        .to_table()
        .sort_by([("host_name", "ascending"), ("ts_start", "ascending")])
    )
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def named(file: EnergyFile) -> EnergyKey:
    name = parse_energy_key(file.key)
    assert name is not None
    return name


def test_what_is_written_is_what_the_ledger_said(store: ObjectStore) -> None:
    log = factory.log_of(store, "node 1/äöü")
    log.add(factory.attempts(3, lost=[1], unread=[2]))
    assert log.pending_rows == 4
    assert log.flush()
    assert log.pending_rows == 0
    (file,) = energy_files(store)
    assert file.key.startswith("energy/date=2026-03-01/host=node%201%2F")
    assert file.size_bytes == len(store.get(file.key))
    rows = stored(store)
    assert rows[0] == {
        "schema_version": 1, "cluster_id": "c", "host_name": "node 1/äöü",
        "hw_id": "GPU-1", "hw_type": "gpu", "hw_name": "test gpu", "hw_parent": None, "zone": "gpu",
        "ts_start": START, "ts_end": START + timedelta(seconds=10), "duration_ns": 10 * S,
        "bucket": "job", "shared": False, "energy_mj": 1_000_000, "energy_active_mj": None,
        "energy_low_mj": None, "energy_high_mj": None, "quality": "measured_counter",
        "method": "nvml", "meter_epoch": 0, "counter_updates": None, "job_id": "job", "shard": 0,
        "attempt_id": "job-0", "images": 64, "batch_size": 32, "steps": 16, "width": 32,
        "height": 32, "precision": "fp32", "model_rev": "rev-1", "driver_version": "570.1",
        "power_limit_mw": 700_000,
    }  # fmt: skip
    assert [(row["bucket"], row["energy_mj"], row["quality"]) for row in rows[1:]] == [
        ("wasted", 1_000_000, "measured_counter"),
        ("gap", None, "missing"),
        ("job", None, "missing"),
    ]
    assert closure_error_mj(store, energy_files(store)) == 0


def test_a_segment_grows_in_one_file_until_it_is_full(local: ObjectStore) -> None:
    log = factory.log_of(local, segment_rows=5)
    for n in range(6):
        log.add(factory.attempts(2, start_s=100 * n))
        assert log.flush()
        assert log.flush(), "nothing new is no reason to write"
    files = energy_files(local)
    assert [info.key for info in local.list(ENERGY)] == [file.key for file in files]
    assert [(n.segment, n.version) for n in map(named, files)] == [(0, 2), (1, 2)]
    assert len(stored(local)) == 12
    assert closure_error_mj(local, files) == 0


def test_rows_are_filed_under_the_day_they_begin_on(store: ObjectStore) -> None:
    log = factory.log_of(store)
    log.add(factory.attempts(3, start_s=DAY_S // 2 - 15))
    log.flush()
    log.add(factory.attempts(1, start_s=DAY_S // 2 - 30))  # held up by an undecided attempt
    log.flush()
    log.add(factory.attempts(1, start_s=DAY_S // 2 + 60))
    log.flush()
    files = energy_files(store)
    assert [(n.day, n.version) for n in map(named, files)] == [
        (date(2026, 3, 1), 1),
        (date(2026, 3, 2), 1),
    ]
    days = [pq.read_table(pa.BufferReader(store.get(f.key))).num_rows for f in files]
    assert days == [3, 2]
    assert len(list(store.list(ENERGY))) == 2


def test_readers_list_and_read_only_the_days_they_need(local: ObjectStore) -> None:
    """Files of the other days are damaged: whoever reads them fails."""
    for day in range(6):
        log = factory.log_of(local, anchor=Anchor(START + timedelta(days=day), 0))
        log.add(factory.attempts(2, joules=day + 1))
        log.flush()
    for file in energy_files(local):
        if file.day not in (date(2026, 3, 3), date(2026, 3, 4)):
            local.put(file.key, b"PAR1 damaged")
    local.put(f"{ENERGY}date=someday/x.parquet", b"")
    local.put(f"{ENERGY}date=2026-03-04/host=a/notes.txt", b"")
    since = datetime.fromisoformat("2026-03-04T02:00:00+02:00")
    chosen = energy_dataset(local, since, since + timedelta(hours=23))
    assert sum(chosen.to_table()["energy_mj"].to_pylist()) == 14_000
    everything = energy_dataset(local)
    afternoon = pads.field("ts_start") >= pa.scalar(START + timedelta(days=2))
    evening = pads.field("ts_start") < pa.scalar(START + timedelta(days=2, hours=9))
    assert everything.to_table(filter=afternoon & evening).num_rows == 2
    sql = "select sum(energy_mj)::bigint as mj, count(*) as n from energy where {}"
    where = (
        "ts_start >= timestamptz '2026-03-04 00:00:00+00' and ts_start < '2026-03-05 00:00:00+00'"
    )
    assert query(local, sql.format(where)).to_pylist() == [{"mj": 8000, "n": 2}]


@pytest.mark.parametrize("seed", range(4))
def test_a_store_that_fails_costs_nothing(local: ObjectStore, seed: int) -> None:
    """Writes fail, lose their replies or land late; each row is in the log once all the same."""
    faulty = FaultyStore(local, seed, FaultRates(before=0.2, after=0.2, late=0.2))
    log = factory.log_of(faulty, segment_rows=4)
    for n in range(10):
        log.add(factory.attempts(1, start_s=100 * n))
        log.flush()
    while not log.close():
        pass
    faulty.settle()
    assert [row["ts_start"] for row in stored(local)] == [
        START + timedelta(seconds=100 * n) for n in range(10)
    ]
    assert closure_error_mj(local, energy_files(local)) == 0


class Away(FaultyStore):
    """A store that refuses to write until it is ``back``."""

    back = False

    def put(self, key: str, data: bytes | Chunks) -> None:
        if not self.back:
            raise Retryable(f"put {key}: refused")
        super().put(key, data)


def test_memory_is_bounded_while_the_store_is_away(local: ObjectStore) -> None:
    store = Away(local, 0, FaultRates())
    log = factory.log_of(store, max_rows=10)
    rows = factory.attempts(40, unread=[17])
    for row in rows:
        log.add([row])
        assert not log.flush()
        assert log.pending_rows <= 10
    store.back = True
    assert log.flush()
    found = stored(local)
    assert sum(row["energy_mj"] or 0 for row in found) == 39_000_000
    assert {row["bucket"] for row in found} == {"gap", "job"}
    assert [row["energy_mj"] for row in found].count(None) == 1, "unknown stays unknown"
    assert all(a["ts_end"] == b["ts_start"] for a, b in pairwise(found)), "a hole or an overlap"
    assert closure_error_mj(local, energy_files(local)) == 0


def test_condensing_keeps_sums_epochs_and_nulls() -> None:
    rows = factory.attempts(6, unread=[2])
    gaps = condensed(rows)
    assert [(gap.bucket, gap.energy_mj, gap.interval.epoch) for gap in gaps] == [
        ("gap", 2_000_000, 0),
        ("gap", None, 0),
        ("gap", 3_000_000, 1),
    ]
    assert metered_mj(gaps) == metered_mj(rows)


def test_a_log_that_breaks_off_shows_where(store: ObjectStore) -> None:
    now = START + timedelta(hours=1)
    other = Device("GPU-2", "gpu", "test gpu", "gpu")
    died = factory.log_of(store)
    died.add([*factory.attempts(2), *factory.attempts(3, device=other)])
    died.flush()
    elsewhere = factory.log_of(store, "node-2")
    elsewhere.add(factory.attempts(9))
    elsewhere.flush()
    seconds = {"GPU-1": 20, "GPU-2": 30}
    ends = {hw_id: START + timedelta(seconds=s) for hw_id, s in seconds.items()}
    assert open_ends(store, "node-1", "c", now) == ends
    assert open_ends(store, "node-1", "another cluster", now) == {}
    assert open_ends(store, "node-1", "c", now + timedelta(days=2)) == {}
    assert ANCHOR.monotonic_at(ends["GPU-2"]) == 30 * S
    heir = factory.log_of(store)
    heir.add(factory.attempts(1, start_s=60))
    assert heir.close()
    assert open_ends(store, "node-1", "c", now) == {"GPU-2": ends["GPU-2"]}
    assert closure_error_mj(store, energy_files(store)) == 0


def test_an_interval_of_several_rows_counts_once(local: ObjectStore) -> None:
    ledger = Ledger(GPU)
    for name in ("a", "b"):
        ledger.report(Use(0, 10 * S, "overhead", name, name))
    for at_s, mj in ((0, 0), (10, 1001)):
        ledger.read(Reading(at_s * S, mj, "measured_counter", "nvml"))
    log = factory.log_of(local)
    log.add(ledger.close())
    log.flush()
    assert [row["energy_mj"] for row in stored(local)] == [501, 500]
    assert closure_error_mj(local, energy_files(local)) == 0


def test_what_goes_on_for_minutes_takes_few_rows(local: ObjectStore) -> None:
    ledger = Ledger(GPU, grace_s=0)
    log = factory.log_of(local)
    for at_s in range(0, 301, 2):
        ledger.read(Reading(at_s * S, at_s * 70_000, "measured_counter", "nvml"))
        log.add(ledger.drain())
    log.flush()
    assert [row["energy_mj"] for row in stored(local)] == [60 * 70_000] * 5
    assert closure_error_mj(local, energy_files(local)) == 0


def test_a_closed_log_is_complete_and_says_so(local: ObjectStore) -> None:
    log = factory.log_of(local)
    assert log.close(), "with nothing to say"
    assert energy_files(local) == []
    log = factory.log_of(local)
    log.add(factory.attempts(2))
    assert log.flush()
    assert log.close()
    assert open_ends(local, "node-1", "c", START) == {}
    assert len(stored(local)) == 2


def test_a_broken_ledger_does_not_close(local: ObjectStore) -> None:
    rows = factory.attempts(2)
    table = energy_table(rows, factory.log_of(local).origin)
    short = table.set_column(
        ENERGY_SCHEMA.get_field_index("energy_mj"),
        "energy_mj",
        pa.array([999_999, 1_000_002], pa.int64()),
    )
    name = EnergyKey(START.date(), "h", "w", 0, 0)
    local.put(name.key, energy_parquet(short, metered_mj(rows)))
    assert closure_error_mj(local, energy_files(local)) == 1


def test_keys_are_read_as_they_are_written() -> None:
    name = EnergyKey(date(2026, 3, 1), "host/with=odd %chars", "ab12", 3, 14)
    assert parse_energy_key(name.key) == name
    for other in ("energy/date=2026-13-01/host=a/w-1-1.parquet", "energy/x", "jobs/a/spec.json"):
        assert parse_energy_key(other) is None
