"""Jobs of rows, from the file to the images: what a row says is what its image is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import Fatal, UserError
from cluster.ledger.sql import query
from cluster.pipeline.shard_runner import ShardRunner
from cluster.storage.commit import read_commits
from cluster.storage.finish import finalise
from cluster.storage.grid import grid
from cluster.storage.image_rows import decode_image
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.storage.reader import iter_images
from cluster.storage.summaries import job_ids
from cluster.storage.verify import verify
from cluster.types import MISSING_ENERGY, Energy, JobRecord
from jobs.inputs import gather
from jobs.resolve import ModelFacts
from jobs.service import gc, submission
from jobs.service import prepare as prepare_module
from jobs.service.core import StoreService
from jobs.service.prepare import inputs_of, prepare, submit
from jobs.spec import JobSpec
from tests.support.fake_server import Clock, without_models
from un0.sampler import Sampler
from un0.testing import random_model

SAMPLER = Sampler(random_model(), device="cpu", threads=1)
FACTS = ModelFacts("test", "rev", 10, SAMPLER.image_size, ("ant", "bee"))
ROWS = """class,seed,custom_id,caption
bee,7,b,"a bee, busy"
wasp,7,w,no such class
2,,none,
ant,18446744073709551615,a,ant
9,7,c,
1,0,b,the same id again
bee,7,d,"a bee, again"
"""


class NoMeter:
    hardware = "test"

    def begin(self, *_: object) -> None: ...

    def end(self, *_: object) -> Energy:
        return MISSING_ENERGY


@pytest.fixture(autouse=True)
def _model(monkeypatch: pytest.MonkeyPatch) -> None:
    without_models(monkeypatch)
    _, work = prepare_module.model_facts("")
    monkeypatch.setattr(prepare_module, "model_facts", lambda _: (FACTS, work))


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text(ROWS)
    return path


def submitted(store: ObjectStore, path: Path, **changes: Any) -> JobRecord:
    spec = JobSpec.model_validate(
        {"inputs": str(path), "job_id": "job", "shard_images": 2, "seed": 5, **changes}
    )
    with inputs_of(spec, store) as inputs:
        record, _ = prepare(spec, store, inputs=inputs)
        submit(record, store, inputs)
    return record


def run(store: ObjectStore, record: JobRecord) -> None:
    workload = record.workload
    runner = ShardRunner(workload, SAMPLER, NoMeter(), store)
    for shard in workload.shards():
        runner.run(shard, f"attempt-{shard.index}")
    finalise(store, workload.job_id, "completed", shards=workload.num_shards, drained=True)


def pixels(row: dict[str, Any]) -> Any:
    return np.asarray(decode_image(row))


def test_images_are_of_their_rows_and_carry_them(store: ObjectStore, rows: Path) -> None:
    record = submitted(store, rows)
    run(store, record)
    found = list(iter_images(store, "job"))
    assert [
        (row["index"], row["class_id"], row["seed"], row["custom_id"], row["caption"])
        for row in found
    ] == [
        (0, 1, 7, "b", "a bee, busy"),
        (1, 2, 5, "none", None),
        (2, 0, 2**64 - 1, "a", "ant"),
        (3, 9, 7, "c", None),
        (4, 1, 7, "d", "a bee, again"),
    ]
    assert np.array_equal(pixels(found[0]), SAMPLER.generate(7, 0, [1])[0])
    assert np.array_equal(pixels(found[1]), SAMPLER.generate(5, 1, [2])[0])
    assert np.array_equal(pixels(found[0]), pixels(found[4])), "of equal rows, equal images"
    assert record.workload.class_ids == (0, 1, 2, 9)
    errors = store.get(JobLayout("job").input_errors).decode().splitlines()
    assert ['"line": 3' in errors[0], '"line": 7' in errors[1], len(errors)] == [True, True, 2]


def test_the_shards_change_no_image(store: ObjectStore, rows: Path) -> None:
    digests = set()
    for job_id, size in (("one", 1), ("two", 2), ("all", 64)):
        run(store, submitted(store, rows, job_id=job_id, shard_images=size))
        report = verify(store, job_id)
        assert report.problems == ()
        digests.add(report.pixel_sha256)
    assert len(digests) == 1
    assert None not in digests


def test_readers_of_jobs_read_them(store: ObjectStore, rows: Path) -> None:
    run(store, submitted(store, rows))
    of_class = list(iter_images(store, "job", columns=["index", "caption"], class_id=1))
    assert [(row["index"], row["caption"]) for row in of_class] == [
        (0, "a bee, busy"),
        (4, "a bee, again"),
    ]
    with pytest.raises(UserError, match="it has 0, 1, 2, 9"):
        iter_images(store, "job", class_id=3)
    with pytest.raises(UserError, match=r"no column 'nope'; .*custom_id, caption"):
        iter_images(store, "job", columns=["nope"])
    assert grid(store, "job", per_class=2).size[1] > 0
    found = query(store, "select custom_id, index from images where caption = 'ant'")
    assert found.to_pylist() == [{"custom_id": "a", "index": 2}]


def test_verify_finds_what_was_changed(store: ObjectStore, rows: Path) -> None:
    record = submitted(store, rows)
    run(store, record)
    inputs = record.workload.inputs
    assert inputs is not None
    key = JobLayout("job").input_part(inputs.digest, 0)
    table = pq.read_table(io.BytesIO(store.get(key)))
    caption = pa.array(["x", *table["caption"].to_pylist()[1:]], pa.string())
    place = table.column_names.index("caption")
    sink = io.BytesIO()
    pq.write_table(table.set_column(place, "caption", caption), sink)
    store.put(key, sink.getvalue())
    problems = "\n".join(verify(store, "job").problems)
    assert "the rows are damaged" in problems
    assert "caption is wrong in 1 rows; first at index 0: a bee, busy, expected x" in problems
    store.delete(key)
    problems = "\n".join(verify(store, "job").problems)
    assert f"{key}: missing" in problems
    with pytest.raises(Fatal, match="submit it again"):
        ShardRunner(record.workload, SAMPLER, NoMeter(), store).run(record.workload.shard(0), "x")


def test_what_the_source_becomes_later_does_not_matter(store: ObjectStore, rows: Path) -> None:
    record = submitted(store, rows)
    rows.unlink()
    run(store, record)
    assert len(read_commits(store, "job")) == 3


def test_counts_must_be_those_of_the_good_rows(store: ObjectStore, rows: Path) -> None:
    assert submitted(store, rows, count=5).workload.count == 5
    with pytest.raises(UserError, match=r"count is 7.*5 good rows and 2 bad ones"):
        submitted(store, rows, job_id="other", count=7)


def test_the_service_takes_them(store: ObjectStore, rows: Path) -> None:
    service = StoreService(store, now_s=Clock(1.0))
    spec = JobSpec.model_validate({"inputs": str(rows)})
    assert service.quote(spec).images_per_hardware == {}
    assert job_ids(store) == [], "a quote writes nothing"
    first = service.submit(spec, by="ann", idempotency_key="k")
    assert first.counts.total == 5
    assert service.submit(spec, by="ann", idempotency_key="k").job_id == first.job_id
    assert "2 bad rows are left out" in service.events(first.job_id)[0].message
    with pytest.raises(UserError, match="the job is strict"):
        service.submit(
            JobSpec.model_validate({"inputs": {"source": str(rows), "strict": True}}), by="ann"
        )


def test_for_others_only_their_uploads_are_read(store: ObjectStore, rows: Path) -> None:
    """A server must not read its own files for whoever asks, nor other jobs'."""
    service = StoreService(store, now_s=Clock(1.0), reads_files=False)
    record = submitted(store, rows)
    assert record.workload.inputs is not None
    store.put("uploads/rows.csv", rows.read_bytes())
    part = JobLayout("job").input_part(record.workload.inputs.digest, 0)
    for source in (str(rows), "s3://other/rows.csv", f"store:{part}", "store:uploads/../jobs/x"):
        spec = JobSpec.model_validate({"inputs": {"source": source, "format": "csv"}})
        for ask in (service.quote, lambda spec: service.submit(spec, by="ann")):
            with pytest.raises(UserError, match="cannot be read here"):
                ask(spec)
    spec = JobSpec.model_validate({"inputs": "store:uploads/rows.csv"})
    assert service.submit(spec, by="ann").counts.total == 5


@pytest.mark.parametrize("where", ["service", "foreground"])
def test_a_submission_that_breaks_off_leaves_no_job(
    store: ObjectStore, rows: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the rows are there and before the job is."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    spec = JobSpec.model_validate({"inputs": str(rows), "job_id": "job"})
    service = StoreService(store, now_s=Clock(1.0))
    with monkeypatch.context() as patch:
        patch.setattr(submission, "put_record", killed)
        patch.setattr("jobs.service.prepare.create_once", killed)
        with pytest.raises(KeyboardInterrupt):
            service.submit(spec, by="ann") if where == "service" else submitted(store, rows)
    now = gather.utc_now()
    assert list(gc.find_garbage(store, now)) == []
    left = {garbage.key for garbage in gc.find_garbage(store, now + 2 * gc.GRACE)}
    assert {info.key for info in store.list("jobs/job/")} <= left
    assert "rows" in "".join(left)
    record = submitted(store, rows)
    assert record.workload.count == 5
    later = list(gc.find_garbage(store, now + 2 * gc.GRACE))
    assert not any("/inputs/" in garbage.key for garbage in later)


def test_rows_of_another_submission_are_garbage(store: ObjectStore, rows: Path) -> None:
    submitted(store, rows)
    spec = JobSpec.model_validate({"inputs": str(rows), "job_id": "job2"})
    rows.write_text("class\n1\n2\n")
    with inputs_of(spec, store) as inputs:
        assert inputs is not None
        inputs.rows.upload(store, "job")
    left = [garbage.key for garbage in gc.find_garbage(store, gather.utc_now())]
    assert sorted(key.rpartition("/")[2] for key in left) == ["00000000.rows", "begun.json"]
