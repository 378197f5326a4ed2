"""Verification: what is right passes, and each kind of damage is named."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.states import JobState
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.storage.verify import Sample, verify
from cluster.types import MISSING_ENERGY, CommitRecord, Manifest, Workload
from tests.support import jobfactory
from tests.support.counting_store import CountingStore
from tests.support.jobfactory import replace_parquet

LAYOUT = JobLayout("job")
JOB = jobfactory.workload()
Edit = Callable[[pa.Table], pa.Table]


@pytest.fixture
def store(memory_dir: Path) -> ObjectStore:
    return open_store(str(memory_dir), probe=False)


def pixel_hash(job: Workload) -> str:
    expected = hashlib.sha256()
    for index, picture in enumerate(jobfactory.pixels(job, 0, job.count)):
        expected.update(index.to_bytes(8, "little") + picture.tobytes())
    return expected.hexdigest()


def test_a_whole_job_passes_on_a_real_s3_server(s3_store: ObjectStore) -> None:
    jobfactory.write_job(s3_store, JOB)
    heard: list[tuple[int, int]] = []
    report = verify(s3_store, "job", on_shard=lambda done, total: heard.append((done, total)))
    assert report.ok
    assert report.problems == ()
    assert report.images == 20
    assert report.pixel_sha256 == pixel_hash(JOB)
    assert (report.energy.energy_mj, report.energy.quality) == (12000, "estimated")
    assert heard == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_pixel_hash_depends_on_the_pictures_alone(store: ObjectStore) -> None:
    hashes = set()
    for number, (size, encoding) in enumerate([(6, "png"), (20, "png"), (7, "webp"), (1, "raw")]):
        job = jobfactory.workload(f"job{number}", shard_images=size, encoding=encoding)
        jobfactory.write_job(store, job)
        report = verify(store, job.job_id)
        assert report.ok
        hashes.add(report.pixel_sha256)
    assert hashes == {pixel_hash(JOB)}
    jobfactory.write_job(store, jobfactory.workload("other", seed=5))
    assert verify(store, "other").pixel_sha256 not in hashes


def test_jobs_of_weighted_classes_and_unknown_energy_pass(store: ObjectStore) -> None:
    job = jobfactory.workload(class_ids=(0, 1, 2), class_weights=(1.0, 5.0, 2.0))
    jobfactory.write_job(store, job, energy=MISSING_ENERGY)
    report = verify(store, "job")
    assert report.ok
    assert (report.energy.energy_mj, report.energy.quality) == (None, "missing")


def test_a_zombies_objects_do_not_matter_while_the_job_runs(store: ObjectStore) -> None:
    jobfactory.write_job(store, JOB, finish=False)
    store.put(LAYOUT.images(2, "zombie"), b"half a file")
    assert verify(store, "job").ok


def test_what_is_left_over_in_a_completed_job_is_named(store: ObjectStore) -> None:
    jobfactory.write_job(store, JOB)
    key = LAYOUT.images(2, "zombie")
    store.put(key, b"half a file")
    report = verify(store, "job")
    assert list(report.problems) == [
        f"{key}: left over: the job is completed and no commit vouches for it"
    ]
    assert report.pixel_sha256 == pixel_hash(JOB)


def damaged(data: bytes) -> bytes:
    return data[:300] + bytes([data[300] ^ 1]) + data[301:]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda store, key: store.delete(key), "missing, though committed"),
        (lambda store, key: store.put(key, damaged(store.get(key))), "damaged: its sha256 is"),
        (lambda store, key: store.put(key, store.get(key)[:-9]), "bytes, committed as"),
        (lambda store, key: store.put(key, b""), "0 bytes, committed as"),
    ],
    ids=["missing", "flipped bit", "truncated", "empty"],
)
def test_a_damaged_object_is_named_with_its_shard(
    store: ObjectStore, change: Callable[[ObjectStore, str], None], complaint: str
) -> None:
    key = jobfactory.write_job(store, JOB)[2].objects[0].key
    change(store, key)
    report = verify(store, "job")
    assert len(report.problems) == 1
    assert report.problems[0].startswith(f"{key} (shard 2)")
    assert complaint in report.problems[0]
    assert report.images == 14
    assert report.pixel_sha256 is None


def test_a_truncated_parquet_file_that_its_record_vouches_for(store: ObjectStore) -> None:
    record = jobfactory.write_job(store, JOB, finish=False)[1]
    replace_parquet(store, record, store.get(record.objects[0].key)[:-9])
    (problem,) = verify(store, "job").problems
    assert problem.startswith(f"{record.objects[0].key} (shard 1): not readable as Parquet")


def edited(store: ObjectStore, record: CommitRecord, edit: Edit) -> bytes:
    table = edit(pq.read_table(io.BytesIO(store.get(record.objects[0].key))))
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def with_column(name: str, edit: Callable[[list[object]], list[object]]) -> Edit:
    def change(table: pa.Table) -> pa.Table:
        field = table.schema.field(name)
        values = pa.array(edit(table[name].to_pylist()), field.type)
        return table.set_column(table.schema.get_field_index(name), field, values)

    return change


def reversed_rows(table: pa.Table) -> pa.Table:
    return table.take(list(range(table.num_rows))[::-1])


def foreign_picture(values: list[object]) -> list[object]:
    big = jobfactory.workload(width=9, height=7)
    table = pq.read_table(io.BytesIO(jobfactory.parquet(big, big.shard(0))))
    return [table["image"][0].as_py(), *values[1:]]


def broken_pictures(values: list[object]) -> list[object]:
    return [{"bytes": b"\x89PNG nothing", "path": None}, None, *values[2:]]


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (with_column("index", lambda v: [*v[:-1], v[0]]), "indices 6 are there more than once"),
        (with_column("index", lambda v: [*v[:-1], v[0]]), "indices 11 are missing"),
        (with_column("index", lambda v: [*v[:-1], 99]), "indices 99 belong to other shards"),
        (with_column("index", lambda v: [*v[:-1], None]), "1 rows have no index"),
        (reversed_rows, "rows are not in index order"),
        (lambda t: t.slice(0, 4), "4 rows; 6 expected"),
        (
            with_column("class_id", lambda v: [v[0], v[1], 2, 2, *v[4:]]),
            "class_id is wrong in 2 rows; first at index 8: 2, expected 1",
        ),
        (
            with_column("label", lambda v: [None, *v[1:]]),
            "label is wrong in 1 rows; first at index 6: None, expected ant",
        ),
        (with_column("seed", lambda v: [5] * len(v)), "seed is wrong in 6 rows"),
        (with_column("job_id", lambda v: ["x"] * len(v)), "job_id is wrong in 6 rows"),
        (with_column("width", lambda v: [9] * len(v)), "width is wrong in 6 rows"),
        (with_column("energy_j", lambda v: [1.0] * len(v)), "energy_j adds up to 6.0 J"),
        (with_column("energy_low_j", lambda v: [None, *v[1:]]), "energy_low_j adds up to"),
        (lambda t: t.drop_columns(["seed"]), "columns are not those of images; see seed: uint64"),
        (with_column("image", foreign_picture), "1 bad images: index 6 is 9x7, not 8x8"),
        (
            with_column("image", broken_pictures),
            "2 bad images: index 6 does not decode: cannot identify",
        ),
        (with_column("image", broken_pictures), "index 7 has no picture"),
    ],
)
def test_wrong_rows_are_named_though_the_record_vouches_for_them(
    store: ObjectStore, edit: Edit, complaint: str
) -> None:
    record = jobfactory.write_job(store, JOB, finish=False)[1]
    replace_parquet(store, record, edited(store, record, edit))
    report = verify(store, "job")
    assert not report.ok
    assert report.pixel_sha256 is None
    assert any(complaint in problem for problem in report.problems), report.problems
    assert all(record.objects[0].key in problem for problem in report.problems)


def test_missing_commits_are_listed_as_ranges(store: ObjectStore) -> None:
    job = jobfactory.workload(shard_images=2)
    jobfactory.write_job(store, job, shards=[0, 2, 6, 9], finish=False)
    report = verify(store, "job")
    assert list(report.problems) == [
        "jobs/job/commits/: 6 of 10 shards are not committed: 1, 3-5, 7-8"
    ]
    assert report.images == 8
    assert report.pixel_sha256 is None


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"start": 7}, "images 7 to 11; by the job's grid this shard is 6 to 11"),
        ({"stop": 18}, "images 6 to 17; by the job's grid this shard is 6 to 11"),
        ({"rows": 5}, "6 rows in its objects, 5 in all; 6 expected"),
        ({"objects": ()}, "0 rows in its objects, 6 in all; 6 expected"),
        ({"shard": 2}, "it speaks of job job, shard 2"),
        ({"job_id": "another"}, "it speaks of job another, shard 1"),
        ({"model_rev": "rev-2"}, "made with model revision rev-2, not rev-1"),
        ({"attempt_id": "another"}, "which is not under jobs/job/attempts/00000001/another/"),
        ({"schema_version": 2}, "of a newer version"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_wrong_commit_record_is_named(
    store: ObjectStore, changes: dict[str, object], complaint: str
) -> None:
    record = jobfactory.write_job(store, JOB, finish=False)[1]
    changed = record.model_copy(update=changes)
    store.put(LAYOUT.commit(1), changed.model_dump_json(warnings=False).encode())
    if "surprise" in changes:
        data = store.get(LAYOUT.commit(1)).replace(b'{"', b'{"surprise":1,"', 1)
        store.put(LAYOUT.commit(1), data)
    problems = verify(store, "job").problems
    assert any(LAYOUT.commit(1) in p and complaint in p for p in problems), problems


def test_a_commit_record_that_is_no_json_is_named(store: ObjectStore) -> None:
    jobfactory.write_job(store, JOB, finish=False)
    store.put(LAYOUT.commit(3), b"\x00\x01")
    (problem,) = verify(store, "job").problems
    assert problem.startswith(LAYOUT.commit(3))


def test_commits_outside_the_grid_are_named(store: ObjectStore) -> None:
    jobfactory.write_job(store, JOB, finish=False)
    store.put(LAYOUT.commit(4), b"{}")
    store.put(f"{LAYOUT.commits}notes.txt", b"")
    assert list(verify(store, "job").problems) == [
        f"{LAYOUT.commits}notes.txt: not a commit record's name",
        f"{LAYOUT.commit(4)}: the job has only 4 shards",
    ]


def test_two_shards_that_share_an_object_are_named(store: ObjectStore) -> None:
    records = jobfactory.write_job(store, JOB, finish=False)
    copy = records[1].model_copy(update={"objects": records[0].objects})
    store.put(LAYOUT.commit(1), copy.model_dump_json().encode())
    problems = verify(store, "job").problems
    assert any(LAYOUT.commit(1) in problem for problem in problems)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m: m.model_copy(update={"images": 19}), "counts 19 images; its commits have 20"),
        (lambda m: m.model_copy(update={"commits": m.commits[1:]}), "commit records of shards 0"),
        (
            lambda m: m.model_copy(update={"energy": m.energy.model_copy(update={"energy_mj": 0})}),
            "energy is 0 mJ; its commits have 12000 mJ",
        ),
        (lambda m: m.model_copy(update={"state": JobState.FAILED}), "its state is failed"),
        (lambda _: None, "without a good manifest"),
    ],
)
def test_a_manifest_that_disagrees_is_named(
    store: ObjectStore, change: Callable[[Manifest], Manifest | None], complaint: str
) -> None:
    jobfactory.write_job(store, JOB)
    changed = change(Manifest.model_validate_json(store.get(LAYOUT.manifest)))
    if changed is None:
        store.delete(LAYOUT.manifest)
    else:
        store.put(LAYOUT.manifest, changed.model_dump_json().encode())
    problems = verify(store, "job").problems
    assert any(complaint in problem for problem in problems), problems


def test_a_sample_opens_a_few_shards_and_counts_all_commits(store: ObjectStore) -> None:
    job = jobfactory.workload(count=40, shard_images=2)
    records = jobfactory.write_job(store, job)
    counting = CountingStore(store)
    report = verify(counting, "job", sample=3, seed=1)
    assert report.ok
    assert report.sample == Sample(3, 20, 1)
    assert (report.images, report.pixel_sha256, report.energy.energy_mj) == (6, None, 9000)
    assert counting.calls["get"] == 2 + 2 * 3  # spec, manifest; a record and a file each
    assert verify(store, "job", sample=99, seed=1).images == 40
    for record in records:
        store.put(record.objects[0].key, b"")
    store.delete(LAYOUT.commit(5))
    report = verify(store, "job", sample=3, seed=1)
    assert len(report.problems) == 4
    assert "1 of 20 shards are not committed: 5" in report.problems[0]


def test_memory_holds_a_few_shards_not_the_job(store: ObjectStore) -> None:
    job = jobfactory.workload(count=64, shard_images=2, width=256, height=256, encoding="raw")
    jobfactory.write_job(store, job)
    tracemalloc.start()
    assert verify(store, "job").ok
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < (64 * 256 * 256 * 3) / 3
