"""The energy log in SQL: the views ``energy`` and ``batches``."""

from __future__ import annotations

from cluster.ledger.ledger import Ledger
from cluster.ledger.reading import Reading
from cluster.ledger.schema import ENERGY_SCHEMA
from cluster.ledger.sql import connect, query, run
from cluster.ledger.usage import Use
from cluster.storage.object_store import ObjectStore
from tests.support import energyfactory as factory
from tests.support.energyfactory import GPU, S


def test_batches_of_attempts_in_sql(store: ObjectStore) -> None:
    log = factory.log_of(store)
    log.add(factory.attempts(4, lost=[1], unread=[2]))
    log.flush()
    with connect(store) as connection:
        rows = run(
            connection,
            "select shard, bucket, images, energy_mj, quality, duration_ns, width from batches "
            "order by shard",
        ).to_pylist()
        known = {"images": 64, "quality": "measured_counter", "duration_ns": 10 * S, "width": 32}
        assert rows == [
            known | {"shard": 0, "bucket": "job", "energy_mj": 1_000_000},
            known | {"shard": 1, "bucket": "wasted", "energy_mj": 1_000_000},
            known | {"shard": 2, "bucket": "job", "energy_mj": None, "quality": "missing"},
            known | {"shard": 3, "bucket": "job", "energy_mj": 1_000_000},
        ]
        sql = "select sum(energy_mj) / 1000.0 as j from energy where bucket = 'wasted'"
        assert run(connection, sql).to_pylist() == [{"j": 1000.0}]


def test_an_attempt_that_ran_into_a_gap_has_no_total(local: ObjectStore) -> None:
    ledger = Ledger(GPU)
    ledger.report(Use(0, 20 * S, "job", "a", "r", factory.work(), 128))
    for at_s, mj, epoch in ((0, 0, 0), (10, 1_000_000, 0), (20, 0, 1)):
        ledger.read(Reading(at_s * S, mj, "measured_counter", "nvml", epoch))
    log = factory.log_of(local)
    log.add(ledger.close())
    log.flush()
    found = query(local, "select energy_mj, images, quality from batches").to_pylist()
    assert found == [{"energy_mj": None, "images": 128, "quality": "missing"}]


def test_an_empty_log_has_empty_views(store: ObjectStore) -> None:
    for view in ("energy", "batches"):
        assert query(store, f"select sum(energy_mj) as mj from {view}").to_pylist() == [
            {"mj": None}
        ]


def test_the_columns_of_the_energy_view(local: ObjectStore) -> None:
    log = factory.log_of(local)
    log.add(factory.attempts(1, device=GPU))
    log.flush()
    found = query(local, "select * from energy").schema
    assert found.names == ENERGY_SCHEMA.names
    assert found.field("ts_start").type == ENERGY_SCHEMA.field("ts_start").type
