"""Compaction of the energy log: the same rows in fewer files, whatever interrupts it."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import date, timedelta
from typing import Any

import pytest

from cluster.clock import Anchor
from cluster.errors import Fatal, Retryable
from cluster.ledger.compaction import compact
from cluster.ledger.reader import closure_error_mj, energy_dataset, energy_files
from cluster.ledger.writer import EnergyLog
from cluster.storage.layout import ENERGY, parse_energy_key
from cluster.storage.object_store import ObjectStore
from cluster.types import Compaction
from jobs.report.build import build_report
from tests.support import energyfactory as factory
from tests.support.cli import un0_json
from tests.support.energyfactory import START
from tests.support.faulty_store import FaultRates, FaultyStore
from tests.support.ledgers import row, write_log

DAY = START.date()
LATER = DAY + timedelta(days=30)


def logged(store: ObjectStore, hosts: int = 3, days: int = 2, *, closed: bool = True) -> None:
    """What some hosts wrote, each day as a writer of its own."""
    for day in range(days):
        for host in range(hosts):
            log = log_on(store, f"node-{host}", day)
            log.add(factory.attempts(4, lost=[1], joules=100 + 7 * host + day))
            assert log.close() if closed else log.flush()


def log_on(store: ObjectStore, host: str, day: int) -> EnergyLog:
    return factory.log_of(store, host, anchor=Anchor(START + timedelta(days=day), 0))


def rows(store: ObjectStore) -> list[str]:
    """All there is, in an order of its own."""
    assert closure_error_mj(store, energy_files(store)) == 0
    table = energy_dataset(store).to_table()
    return sorted(json.dumps(row, default=str, sort_keys=True) for row in table.to_pylist())


def compacted(store: ObjectStore, today: date = LATER, **more: Any) -> list[Compaction]:
    return [made for _, made in compact(store, today, **more)]


def keys(store: ObjectStore) -> list[str]:
    return [info.key for info in store.list(ENERGY)]


def test_the_same_rows_in_one_file_a_day_and_the_same_report(store: ObjectStore) -> None:
    logged(store)
    before, report = rows(store), build_report(store, by="node").view().model_dump(mode="json")
    made = compacted(store)
    assert [len(one.sources) for one in made] == [3, 3]
    assert rows(store) == before
    after = build_report(store, by="node").view().model_dump(mode="json")
    assert after["log_files"] == 2
    different = ("made_at", "log_files", "log_bytes")
    assert {k: v for k, v in after.items() if k not in different} == {
        k: v for k, v in report.items() if k not in different
    }
    assert sorted(keys(store)) == sorted(
        key for one in made for key in (one.key, f"{one.key.rpartition('-')[0]}.json")
    )
    assert compacted(store) == [], "there is nothing left to do"


def test_a_day_is_read_alone_from_what_was_compacted(local: ObjectStore) -> None:
    logged(local, days=4)
    compacted(local)
    second = START + timedelta(days=1)
    files = energy_files(local, second + timedelta(days=1), second + timedelta(days=1))
    assert {file.day for file in files} == {DAY + timedelta(days=1), DAY + timedelta(days=2)}


def test_a_file_is_made_of_so_many_as_fill_it(local: ObjectStore) -> None:
    logged(local, hosts=5, days=1)
    before = rows(local)
    assert [len(one.sources) for one in compacted(local, file_rows=8)] == [2, 2]
    assert rows(local) == before
    assert len(energy_files(local)) == 3, "one is left alone"


def test_recent_days_and_files_that_may_still_grow_are_left_as_they_are(local: ObjectStore) -> None:
    logged(local, closed=False)  # the nodes may be at work, or dead
    before = keys(local)
    assert compacted(local) == []
    assert keys(local) == before
    logged(local)
    assert compacted(local, DAY + timedelta(days=1)) == []
    assert len(compacted(local, DAY + timedelta(days=2))) == 1, "the first day is past"


def test_a_writer_that_has_gone_on_to_later_days_needs_no_end(local: ObjectStore) -> None:
    logs = [log_on(local, f"node-{host}", 0) for host in range(2)]
    for day in range(4):
        for log in logs:
            log.add(factory.attempts(1, start_s=day * 86_400))
            assert log.flush()
    before = rows(local)
    made = compacted(local)
    assert [one.key.split("/")[1] for one in made] == ["date=2026-03-01", "date=2026-03-02"]
    for log in logs:  # held up for long: what was compacted does not grow
        log.add(factory.attempts(1, start_s=100))
        log.add(factory.attempts(1, start_s=86_500))
        assert log.flush()
        log.add(factory.attempts(1, start_s=200))
        assert log.flush()
    assert len(rows(local)) == len(before) + 6


def test_what_does_not_add_up_stays_in_sight(local: ObjectStore) -> None:
    write_log(local, [row("job", 5, host_name="a")], error_mj=3)
    write_log(local, [row("job", 5, host_name="b"), row("job", 5, host_name="c")])
    assert len(compacted(local)) == 1
    assert closure_error_mj(local, energy_files(local)) == 3
    assert len(energy_files(local)) == 2


@pytest.mark.parametrize("seed", range(12))
def test_a_store_that_fails_at_any_point_neither_loses_nor_doubles_a_row(
    local: ObjectStore, seed: int
) -> None:
    logged(local, hosts=4, days=3)
    before = rows(local)
    rates = FaultRates(before=0.1, after=0.1, late=0.1, replayed=0.1)
    faulty = FaultyStore(local, seed, rates)
    for _ in range(10):
        with suppress(Retryable):
            compacted(faulty, file_rows=8)
        assert rows(local) == before
    faulty.settle()
    for _ in range(2):  # the second finds what the first has made superfluous
        compacted(local)
    assert rows(local) == before
    names = keys(local)
    assert not any(map(parse_energy_key, names)), "no source is left"
    files = {file.key for file in energy_files(local)}
    assert {name for name in names if name.endswith(".parquet")} == files, "nor what came to naught"


def test_of_two_at_once_one_makes_the_file(local: ObjectStore) -> None:
    logged(local)
    before = rows(local)
    others: list[Compaction] = []

    def meanwhile(verb: str, _: str) -> None:
        """Another compaction, when this one has all but made its first file count."""
        if verb == "put_if_absent" and not others:
            others.extend(compacted(local))

    slow = FaultyStore(local, 0, FaultRates(slow=1.0), on_slow=meanwhile)
    assert compacted(slow) == []
    assert len(others) == 2
    assert rows(local) == before
    assert {key for key in keys(local) if key.endswith(".parquet")} == {one.key for one in others}


def test_a_file_written_again_after_all_is_an_error_not_a_sum(local: ObjectStore) -> None:
    logged(local, days=1)
    (first, *_) = [file.key for file in energy_files(local)]
    data = local.get(first)
    compacted(local)
    name = parse_energy_key(first)
    assert name is not None
    local.put(name._replace(version=name.version + 1).key, data)
    with pytest.raises(Fatal, match=r"written after .*compacted/000000\.json"):
        energy_files(local)


def test_the_command_tells_what_it_did(local: ObjectStore) -> None:
    logged(local)
    made = un0_json("compact", "--store", local.config.uri)
    assert [(one["day"], one["files"]) for one in made] == [("2026-03-01", 3), ("2026-03-02", 3)]
    assert un0_json("compact", "--store", local.config.uri) == []
