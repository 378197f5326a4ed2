"""SQL over a store: right answers, only what is needed is read, and nothing can be changed."""

from __future__ import annotations

import threading

import pyarrow as pa
import pytest

from cluster.errors import UserError
from cluster.ledger.sql import connect, query, run
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.storage.schemas import COMMIT_SCHEMA, IMAGE_SCHEMA, JOB_SCHEMA
from cluster.types import MISSING_ENERGY
from tests.support import jobfactory


def test_images_of_all_jobs_are_one_table(store: ObjectStore) -> None:
    jobfactory.write_job(store, jobfactory.workload("one"))
    jobfactory.write_job(store, jobfactory.workload("two", count=7, encoding="webp"), finish=False)
    with connect(store) as connection:
        totals = run(
            connection,
            "select job_id, count(*) as n, count(distinct index) as d, min(index) as lowest, "
            "max(index) as highest, sum(energy_j) as j from images group by all order by all",
        )
        assert totals.to_pylist() == [
            {"job_id": "one", "n": 20, "d": 20, "lowest": 0, "highest": 19, "j": pytest.approx(12)},
            {"job_id": "two", "n": 7, "d": 7, "lowest": 0, "highest": 6, "j": pytest.approx(6)},
        ]
        labels = run(
            connection, "select label, count(*) as n from images where job_id = 'one' group by all"
        )
        assert {row["label"]: row["n"] for row in labels.to_pylist()} == {
            "ant": 7,
            "bee": 6,
            None: 7,
        }
        picture = run(connection, "select image from images where index = 3 and job_id = 'two'")
        assert picture["image"][0].as_py()["bytes"][8:12] == b"WEBP"


def test_jobs_and_commits_can_be_joined(store: ObjectStore) -> None:
    jobfactory.write_job(store, jobfactory.workload("done"))
    jobfactory.write_job(store, jobfactory.workload("open"), shards=[2], finish=False)
    rows = query(
        store,
        "select job_id, state, images, count, owner, seed, sum(c.rows) as committed, "
        "sum(c.energy_j) as j, min(c.start) as start, bool_and(c.size_bytes > 0) as sized, "
        "max(len(c.keys)) as objects "
        "from jobs join commits c using (job_id) group by all order by all",
    ).to_pylist()
    common = {"count": 20, "owner": "tester", "seed": 2**64 - 1, "sized": True, "objects": 1}
    assert rows == [
        common
        | {"job_id": "done", "state": "completed", "images": 20, "committed": 20, "j": 12.0}
        | {"start": 0},
        common
        | {"job_id": "open", "state": "incomplete", "images": 6, "committed": 6, "j": 3.0}
        | {"start": 12},
    ]


def test_the_columns_of_the_views(local: ObjectStore) -> None:
    jobfactory.write_job(local, jobfactory.workload())
    for view, schema in (
        ("images", IMAGE_SCHEMA),
        ("commits", COMMIT_SCHEMA),
        ("jobs", JOB_SCHEMA),
    ):
        found = query(local, f"select * from {view}").schema
        assert set(found.names) == set(schema.names)
        for name in ("job_id", "energy_j", "energy_quality"):
            assert found.field(name).type == schema.field(name).type


def test_an_empty_store_has_empty_views(store: ObjectStore) -> None:
    sql = "select count(*) as n, sum(energy_j) as j from {}"
    for view in ("images", "commits", "jobs"):
        assert query(store, sql.format(view)).to_pylist() == [{"n": 0, "j": None}]
    assert query(store, "select image.bytes from images").num_rows == 0


def test_uncommitted_objects_are_not_there(store: ObjectStore) -> None:
    job = jobfactory.workload()
    jobfactory.write_job(store, job, shards=[0], finish=False)
    store.put(JobLayout("job").images(0, "zombie"), jobfactory.parquet(job, job.shard(0)))
    store.put(JobLayout("job").images(1, "half"), b"PAR1")
    assert query(store, "select count(*) as n from images").to_pylist() == [{"n": 6}]


def test_unknown_energy_is_null_not_zero(local: ObjectStore) -> None:
    jobfactory.write_job(local, jobfactory.workload(), energy=MISSING_ENERGY)
    for view in ("images", "commits", "jobs"):
        answer = query(
            local,
            f"select sum(energy_j) as j, avg(energy_high_j) as high, count(energy_j) as n, "
            f"any_value(energy_quality) as quality from {view}",
        )
        assert answer.to_pylist() == [{"j": None, "high": None, "n": 0, "quality": "missing"}]


def test_counting_does_not_read_pictures(local: ObjectStore) -> None:
    """The images are overwritten: whoever reads them fails, whoever counts does not notice."""
    job = jobfactory.workload(count=4, shard_images=4, width=64, height=64, encoding="raw")
    (record,) = jobfactory.write_job(local, job)
    data = local.get(record.objects[0].key)
    local.put(record.objects[0].key, b"PAR1" + b"\xff" * 40_000 + data[40_004:])
    assert len(data) > 45_000
    answer = query(local, "select count(*) as n, sum(energy_j) as j, max(label) as l from images")
    assert answer.to_pylist() == [{"n": 4, "j": pytest.approx(3), "l": "bee"}]
    with pytest.raises(UserError, match="query: "):
        query(local, "select max(octet_length(image.bytes)) from images")


def test_filters_leave_other_files_unread(local: ObjectStore) -> None:
    kept = jobfactory.write_job(local, jobfactory.workload("kept"))
    jobfactory.write_job(local, jobfactory.workload("lost"))
    for summary in ("lost", "kept"):
        for info in list(local.list(f"jobs/{summary}/attempts/")):
            if info.key != kept[1].objects[0].key:
                local.delete(info.key)
    sql = "select index from images where job_id = 'kept' and index between 7 and 9 order by 1"
    assert query(local, sql)["index"].to_pylist() == [7, 8, 9]
    with pytest.raises(UserError, match=r"images\.parquet"):
        query(local, "select count(label) from images")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("selec 1", "syntax error"),
        (" ", "empty; try: select"),
        ("select nope from images", '"nope" not found.*index'),
        ("select * from pictures", "pictures does not exist"),
        ("select sum(label) from images", "sum"),
        ("select error('boom')", "boom"),
        ("copy (select 1) to '/tmp/never-written.csv'", "disabled by configuration"),
        ("select * from '/etc/passwd'", "/etc/passwd does not exist"),
        ("select * from read_text('/etc/passwd')", "disabled by configuration"),
        ("attach '/tmp/never-written.db'", "disabled by configuration"),
        ("install httpfs", "disabled by configuration"),
        ("set enable_external_access = true", "locked|Cannot"),
        ("delete from jobs", "Can only delete from base table"),
        ("insert into commits select * from commits", "commits is not an? table"),
    ],
)
def test_a_statement_that_cannot_be_run_says_why(
    sql: str, message: str, local: ObjectStore
) -> None:
    jobfactory.write_job(local, jobfactory.workload())
    with pytest.raises(UserError, match=rf"(?s)^query: .*(?:{message})"):
        query(local, sql)
    assert query(local, "select count(*) as n from images").to_pylist() == [{"n": 20}]


def test_python_variables_are_not_tables(local: ObjectStore) -> None:
    secrets = pa.table({"a": [1]})
    with pytest.raises(UserError, match="secrets"):
        query(local, "select * from secrets")
    assert secrets.num_rows == 1


def test_many_files_and_threads_do_not_block_each_other(store: ObjectStore) -> None:
    jobfactory.write_job(store, jobfactory.workload(count=120, shard_images=3), finish=False)
    answers: list[object] = []

    def ask() -> None:
        answers.append(query(store, "select count(distinct label) as n from images").to_pylist())

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert answers == [[{"n": 2}]] * 4
