"""Reading a store back: jobs, images and contact sheets come from commits, and from them alone."""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster.errors import Fatal, NotFound, UserError
from cluster.storage.finish import finalise
from cluster.storage.grid import grid
from cluster.storage.layout import JobLayout
from cluster.storage.local import LocalStore
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.storage.reader import decode_image, iter_images
from cluster.storage.summaries import list_jobs, load_job
from cluster.types import MISSING_ENERGY, Workload
from tests.support import jobfactory


class RecordingStore(LocalStore):
    """A local store that remembers which objects were read."""

    def __init__(self, directory: Path) -> None:
        super().__init__(open_store(str(directory), probe=False).config)
        self.opened: list[str] = []

    def open_reader(self, key: str):  # type: ignore[no-untyped-def]
        self.opened.append(key)
        return super().open_reader(key)


def test_images_come_back_in_index_order(store: ObjectStore) -> None:
    job = jobfactory.workload()
    jobfactory.write_job(store, job)
    rows = list(iter_images(store, "job"))
    assert [row["index"] for row in rows] == list(range(20))
    pixels = np.stack([np.asarray(decode_image(row)) for row in rows])
    assert np.array_equal(pixels, jobfactory.pixels(job, 0, 20))


def test_columns_class_and_limit_choose_rows(store: ObjectStore) -> None:
    jobfactory.write_job(store, jobfactory.workload())
    rows = list(iter_images(store, "job", columns=["label", "index"], class_id=1, limit=4))
    assert rows == [{"label": "bee", "index": index} for index in (2, 5, 8, 11)]
    assert list(iter_images(store, "job", limit=0)) == []
    assert len(list(iter_images(store, "job", limit=99))) == 20


def test_rows_spread_over_many_row_groups(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), probe=False)
    job = jobfactory.workload(
        count=40, shard_images=40, width=512, height=512, class_ids=(0, 1, 2, 3, 4), encoding="raw"
    )  # 786 kB an image: two row groups
    jobfactory.write_job(store, job)
    found = [
        (row["index"], decode_image(row).getpixel((5, 7)))
        for row in iter_images(store, "job", columns=["index", "image"], class_id=3)
    ]
    expected = [(i, tuple(jobfactory.pixels(job, i, i + 1)[0, 7, 5])) for i in range(3, 40, 5)]
    assert found == expected


def test_only_shards_that_are_needed_are_read(tmp_path: Path) -> None:
    store = RecordingStore(tmp_path)
    records = jobfactory.write_job(store, jobfactory.workload())
    list(iter_images(store, "job", limit=7))
    assert store.opened == [record.objects[0].key for record in records[:2]]


def test_an_unfinished_job_yields_what_is_committed(store: ObjectStore) -> None:
    job = jobfactory.workload()
    jobfactory.write_job(store, job, shards=[3, 1], finish=False)
    assert [row["index"] for row in iter_images(store, "job")] == [*range(6, 12), 18, 19]


def test_objects_that_no_commit_vouches_for_are_invisible(store: ObjectStore) -> None:
    job = jobfactory.workload()
    jobfactory.write_job(store, job, shards=[0], finish=False)
    for shard in (0, 1):
        store.put(JobLayout("job").images(shard, "zombie"), jobfactory.parquet(job, job.shard(1)))
    assert [row["index"] for row in iter_images(store, "job")] == list(range(6))
    assert [summary.images for summary in list_jobs(store)] == [6]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": ["index", "energy"]}, "no column 'energy'; images have image, image_id"),
        ({"class_id": 7}, "job job has no class 7; it has 0, 1, 2"),
        ({"limit": -1}, "limit is -1"),
    ],
)
def test_a_wrong_request_is_refused_before_reading(
    arguments: dict[str, object], message: str, tmp_path: Path
) -> None:
    store = open_store(str(tmp_path), probe=False)
    jobfactory.write_job(store, jobfactory.workload())
    with pytest.raises(UserError, match=message):
        iter_images(store, "job", **arguments)  # type: ignore[arg-type]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), probe=False)
    record = jobfactory.write_job(store, jobfactory.workload())[0]
    store.put(record.objects[0].key, b"PAR1 but not really PAR1")
    with pytest.raises(Fatal, match=f"{record.objects[0].key}.*un0 verify job"):
        list(iter_images(store, "job"))
    store.delete(record.objects[0].key)
    with pytest.raises(NotFound, match=record.objects[0].key):
        list(iter_images(store, "job"))


def test_jobs_are_listed_with_state_progress_and_joules(store: ObjectStore) -> None:
    def submit(name: str, age: int, shards: int) -> Workload:
        job = jobfactory.workload(name)
        jobfactory.submit(store, job, submitted_at=jobfactory.START + timedelta(hours=age))
        for index in range(shards):
            jobfactory.write_shard(store, job, index)
        return job

    jobs = [submit(f"{n}-job", n, shards) for n, shards in enumerate((4, 2, 1, 1, 0))]
    jobfactory.write_shard(store, jobs[3], 1, MISSING_ENERGY)
    for job, state in zip(jobs, ("completed", "cancelled", "failed"), strict=False):
        finalise(store, job.job_id, state)  # type: ignore[arg-type]
    found = list_jobs(store)
    assert [(j.job_id, j.state, j.images, j.count) for j in found] == [
        ("0-job", "completed", 20, 20),
        ("1-job", "cancelled", 12, 20),
        ("2-job", "failed", 6, 20),
        ("3-job", "incomplete", 12, 20),
        ("4-job", "incomplete", 0, 20),
    ]
    energies = [(j.energy.energy_mj, j.energy.low_mj, j.energy.quality) for j in found[:4]]
    assert energies == [
        (12000, 4000, "estimated"),
        (6000, 2000, "estimated"),
        (3000, 1000, "estimated"),
        (None, None, "missing"),
    ]
    assert {(j.owner, j.model) for j in found} == {("tester", "test/tiny")}


def test_a_job_that_cannot_be_read_does_not_hide_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(str(tmp_path), probe=False)
    jobfactory.write_job(store, jobfactory.workload("good"))
    store.put(JobLayout("newer").spec, b'{"schema_version": 2}')
    store.put("jobs/stray/notes.txt", b"")
    with caplog.at_level(logging.WARNING):
        assert [job.job_id for job in list_jobs(store)] == ["good"]
    assert "job newer is left out: jobs/newer/spec.json" in caplog.text
    with pytest.raises(Fatal, match=r"jobs/newer/spec\.json"):
        load_job(store, "newer")


def test_an_unknown_job_is_answered_with_similar_ones(store: ObjectStore) -> None:
    with pytest.raises(UserError, match=r"no job 'cats': .* holds no jobs at all"):
        load_job(store, "cats")
    for name in ("cats-1", "cats-2", "frogs"):
        jobfactory.submit(store, jobfactory.workload(name))
    with pytest.raises(UserError) as error:
        load_job(store, "cats")
    assert store.config.uri in str(error.value)
    assert "did you mean 'cats-1' or 'cats-2'?" in str(error.value)
    with pytest.raises(UserError, match="`un0 jobs` lists"):
        load_job(store, "zzz")


def test_the_grid_has_a_row_a_class_and_their_first_pictures(store: ObjectStore) -> None:
    job = jobfactory.workload()
    jobfactory.write_job(store, job)
    sheet = grid(store, "job", per_class=3, scale=5)
    pixels = jobfactory.pixels(job, 0, 20)
    rows = {0: (0, 3, 6), 1: (2, 5, 8), 2: (1, 4, 7)}  # by class, though dealt out as 0, 2, 1
    corners = _cells(sheet, [pixels[index] for row in rows.values() for index in row], 5)
    tops = [top for _, top in corners]
    lefts = [left for left, _ in corners]
    assert tops == sorted(tops)
    assert len(set(tops)) == len(set(lefts)) == 3
    assert lefts == sorted(set(lefts)) * 3
    label_area = np.asarray(sheet)[:, : lefts[0]]
    assert label_area.min() < 128  # there is writing to the left of the pictures


def _cells(sheet: Image.Image, pictures: list[np.ndarray], scale: int) -> list[tuple[int, int]]:
    """The (left, top) of each picture in the sheet, enlarged; it must be there exactly once."""
    canvas = np.asarray(sheet)
    corners = []
    for picture in pictures:
        big = picture.repeat(scale, 0).repeat(scale, 1)
        height, width, _ = big.shape
        starts = np.argwhere((canvas == big[0, 0]).all(-1))
        found = [
            (int(left), int(top))
            for top, left in starts
            if np.array_equal(canvas[top : top + height, left : left + width], big)
        ]
        assert len(found) == 1
        corners += found
    return corners


def test_the_grid_reads_no_more_than_it_shows(tmp_path: Path) -> None:
    store = RecordingStore(tmp_path)
    records = jobfactory.write_job(store, jobfactory.workload(count=60))
    grid(store, "job", per_class=3)
    assert store.opened == [record.objects[0].key for record in records[:2]]


def test_the_grid_of_an_unfinished_job_leaves_cells_empty(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), probe=False)
    full, part = jobfactory.workload("full"), jobfactory.workload("part")
    jobfactory.write_job(store, full)
    jobfactory.write_job(store, part, shards=[1], finish=False)
    sizes = {grid(store, name, per_class=5).size for name in ("full", "part")}
    assert len(sizes) == 1


def test_the_grid_copes_with_odd_labels(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), probe=False)
    labels = ("two\nlines", "", "a very long label, " * 9)
    jobfactory.write_job(store, jobfactory.workload(labels=labels))
    assert grid(store, "job", scale=8).width < 1200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_class": 0}, "per_class 0"),
        ({"scale": 0}, "scale 0"),
        ({"per_class": 20_000, "scale": 64}, "lower --per-class"),
    ],
)
def test_a_grid_that_cannot_be_drawn_says_why(
    options: dict[str, int], message: str, tmp_path: Path
) -> None:
    store = open_store(str(tmp_path), probe=False)
    jobfactory.write_job(store, jobfactory.workload())
    with pytest.raises(UserError, match=message):
        grid(store, "job", **options)


def test_a_grid_of_nothing_says_how_to_go_on(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), probe=False)
    jobfactory.submit(store, jobfactory.workload())
    with pytest.raises(UserError, match="no committed images yet; `un0 resume job`"):
        grid(store, "job")
