"""Checkpoints are read in place of records, never believed against them, and never needed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.errors import Fatal, NotFound
from cluster.storage import commits as commits_module
from cluster.storage.checkpoint import encode, read_checkpoint, write_checkpoint
from cluster.storage.checkpoint_header import key_of
from cluster.storage.checkpointing import Checkpointer, catch_up, range_of
from cluster.storage.commit import commit, read_commits, reopen
from cluster.storage.commit_table import table_of
from cluster.storage.commits import open_commits
from cluster.storage.finish import finalise
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.storage.summaries import summarise
from cluster.storage.verify import verify
from cluster.types import MISSING_ENERGY, CheckpointRef, CommitRecord
from tests.support import jobfactory
from tests.support.counting_store import CountingStore

JOB = jobfactory.workload(count=22, shard_images=2, width=2, height=2)  # 11 shards
LAYOUT = JobLayout("job")
EVERY = 4


@pytest.fixture
def store(memory_dir: Path) -> ObjectStore:
    return open_store(str(memory_dir), probe=False)


def write(store: ObjectStore, *shards: int) -> list[CommitRecord]:
    return jobfactory.write_job(store, JOB, shards=shards, finish=False)


def ends(refs: tuple[CheckpointRef, ...]) -> list[tuple[int, int]]:
    return [(ref.first, ref.stop) for ref in refs]


def checkpointed(store: ObjectStore, *shards: int) -> tuple[CheckpointRef, ...]:
    """A job with these shards committed, all of them in checkpoints."""
    write(store, *shards)
    return catch_up(open_commits(store, "job", shards=11, every=EVERY), every=EVERY).checkpoints


def keys(store: ObjectStore) -> list[str]:
    return [info.key for info in store.list(LAYOUT.checkpoints)]


def test_a_run_checkpoints_each_range_as_it_fills(store: ObjectStore) -> None:
    jobfactory.submit(store, JOB)
    keeper = Checkpointer(store, "job", 11, every=EVERY, fresh=2)
    for shard in (5, 0, 1, 10, 4, 2, 6, 3, 8):  # in whatever order
        keeper.add(jobfactory.write_shard(store, JOB, shard))
    keeper.settle()
    found = open_commits(store, "job", shards=11, every=EVERY)
    assert [(ref.first, ref.stop, ref.shards) for ref in found.checkpoints] == [
        (0, 4, ((0, 4),)),
        (4, 8, ((4, 6),)),  # 6 is one commit: fewer than are written anew for
        (8, 11, ((8, 9), (10, 11))),
    ]
    assert list(found.beside) == [6]
    assert len(keys(store)) == 3  # earlier ones of a range are gone
    assert list(found) == list(read_commits(store, "job").values())


def test_a_resume_lists_and_reads_what_is_beside_checkpoints_only(store: ObjectStore) -> None:
    checkpointed(store, *range(8))
    write(store, 9)
    counting = CountingStore(store)
    commits = open_commits(counting, "job", shards=11, every=EVERY)
    assert tuple(commits.shards) == ((0, 8), (9, 10))
    assert (commits.images, commits.energy.energy_mj) == (18, 9 * 3000)
    assert [key for key in counting.listed if key.startswith(LAYOUT.commits)] == [LAYOUT.commit(9)]
    assert counting.calls["get"] == 1


def test_in_a_directory_few_that_are_missing_are_looked_for_and_nothing_is_listed(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpointed(store, *range(6), 8, 9, 10)
    write(store, 7)
    monkeypatch.setattr(commits_module, "A_LOOK", 4)
    counting = CountingStore(store)
    commits = open_commits(counting, "job", shards=11, every=EVERY)
    assert tuple(commits.shards) == ((0, 6), (7, 11))
    assert not [key for key in counting.listed if key.startswith(LAYOUT.commits)]
    assert list(commits) == list(read_commits(store, "job").values())


def test_a_job_of_one_checkpoints_worth_is_not_asked_for_any(store: ObjectStore) -> None:
    checkpointed(store, *range(11))
    counting = CountingStore(store)
    assert len(open_commits(counting, "job", shards=11, every=11)) == 11
    assert counting.calls == {"list": 1}


def test_unknown_energy_stays_unknown(store: ObjectStore) -> None:
    write(store, 0, 1, 2)
    jobfactory.write_shard(store, JOB, 3, MISSING_ENERGY)
    commits = catch_up(open_commits(store, "job"), every=EVERY)
    assert commits.energy == MISSING_ENERGY
    assert [record.energy.energy_mj for record in commits] == [3000, 3000, 3000, None]


def test_the_end_names_checkpoints_in_place_of_commits(store: ObjectStore) -> None:
    records = write(store, *range(11))
    store.put(LAYOUT.images(5, "zombie"), b"half")
    manifest = finalise(store, "job", "completed", shards=11, every=EVERY)
    assert (manifest.commits, ends(manifest.checkpoints)) == ((), [(0, 4), (4, 8), (8, 11)])
    assert (manifest.images, manifest.energy.energy_mj) == (22, 33000)
    assert [info.key for info in store.list(LAYOUT.attempts)] == [r.objects[0].key for r in records]
    summary = summarise(CountingStore(store), "job")
    assert (summary.images, summary.energy) == (22, manifest.energy)
    assert list(summary.commits) == records
    assert verify(store, "job").ok
    assert finalise(store, "job", "completed", shards=11, every=EVERY) == manifest


def test_a_job_that_ends_with_holes_is_resumed_and_completed(store: ObjectStore) -> None:
    """Its checkpoints hold what there is; those of filled ranges take their place."""
    write(store, 0, 2, 3, 4, 5, 6, 7, 9)
    ended = finalise(store, "job", "failed", shards=11, every=EVERY)
    assert [ref.shards for ref in ended.checkpoints] == [
        ((0, 1), (2, 4)), ((4, 8),), ((9, 10),),
    ]  # fmt: skip
    assert summarise(store, "job").images == 16
    reopen(store, "job")
    write(store, 1, 8, 10)
    manifest = finalise(store, "job", "completed", shards=11, every=EVERY)
    assert all(ref.whole for ref in manifest.checkpoints)
    assert keys(store) == [key_of(ref) for ref in manifest.checkpoints]
    assert verify(store, "job").ok


def test_a_committed_object_that_is_gone_or_short_stops_a_large_jobs_end(
    store: ObjectStore,
) -> None:
    records = write(store, *range(11))
    store.put(records[6].objects[0].key, b"cut")
    with pytest.raises(Fatal, match="bytes, now 3"):
        finalise(store, "job", "completed", shards=11, every=EVERY)
    store.delete(records[6].objects[0].key)
    with pytest.raises(Fatal, match="now absent"):
        finalise(store, "job", "completed", shards=11, every=EVERY)
    assert not store.list_dirs(LAYOUT.root)[3:]


def torn(data: bytes) -> bytes:
    return data[:-9]


def flipped(data: bytes) -> bytes:
    return data[:200] + bytes([data[200] ^ 1]) + data[201:]


def flipped_end(data: bytes) -> bytes:
    at = data.rindex(b"images") + 9
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def empty(_: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [torn, flipped, flipped_end, empty])
@pytest.mark.parametrize("finished", [False, True])
def test_a_damaged_checkpoint_is_named_and_its_commits_are_read(
    store: ObjectStore,
    damage: Callable[[bytes], bytes],
    finished: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    refs = checkpointed(store, *range(11))
    if finished:
        finalise(store, "job", "completed", shards=11, every=EVERY)
    key = key_of(refs[1])
    store.put(key, damage(store.get(key)))
    caplog.set_level(logging.WARNING)
    found = open_commits(store, "job")
    assert list(found) == list(read_commits(store, "job").values())
    assert (found.images, found.energy.energy_mj) == (22, 33000)
    assert key in caplog.text
    summary = summarise(store, "job")
    assert (len(list(summary.commits)), summary.images) == (11, 22)
    if finished:
        report = verify(store, "job")
        assert [problem.partition(":")[0] for problem in report.problems] == [key]
        assert report.images == 22


def test_the_next_end_writes_a_damaged_checkpoint_again(store: ObjectStore) -> None:
    key = key_of(checkpointed(store, *range(11))[1])
    good = store.get(key)
    store.put(key, torn(good))
    finalise(store, "job", "completed", shards=11, every=EVERY)
    assert store.get(key) == good
    assert verify(store, "job").ok


def test_a_forged_checkpoint_is_not_believed(store: ObjectStore) -> None:
    """Of another job, under another range's name, or no checkpoint at all."""
    write(store, *range(11))
    other = jobfactory.record_of(JOB, JOB.shard(1), b"x", job_id="other")
    foreign, data = encode("other", 0, 4, table_of([other]))
    store.put(LAYOUT.checkpoint(0, 4, foreign.seal), data)
    mine = [record for shard, record in read_commits(store, "job").items() if 4 <= shard < 8]
    moved, data = encode("job", 4, 8, table_of(mine))
    store.put(LAYOUT.checkpoint(0, 4, moved.seal), data)
    store.put(f"{LAYOUT.checkpoints}notes.txt", b"someone's own")
    found = open_commits(store, "job")
    assert (found.checkpoints, len(found.faults)) == ((), 3)
    assert list(found) == list(read_commits(store, "job").values())


def test_a_checkpoint_that_differs_from_the_records_is_named_by_verify(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_commits, "__kwdefaults__", {"shards": None, "every": EVERY})
    records = write(store, *range(11))
    false = [records[0], records[1].model_copy(update={"token": "forged"}), *records[2:4]]
    ref = write_checkpoint(store, "job", 0, 4, false)
    assert list(verify(store, "job").problems) == [
        f"{key_of(ref)}: it differs from the commit records of shards 1"
    ]


def test_equal_commits_make_one_object_whoever_writes_it(store: ObjectStore) -> None:
    records = write(store, *range(4))
    refs = {write_checkpoint(store, "job", 0, 4, some) for some in (records, records[::-1])}
    assert len(refs) == len(keys(store)) == 1
    with pytest.raises(NotFound):
        read_checkpoint(store, next(iter(refs)).model_copy(update={"seal": "0-0"}))


def test_records_that_columns_cannot_hold_stay_records(store: ObjectStore) -> None:
    write(store, *range(7))
    odd = jobfactory.record_of(JOB, JOB.shard(7), b"x", generate_s=1.0, rows=2**63)
    store.put(odd.objects[0].key, b"x")
    assert commit(store, odd) == "won"
    manifest = finalise(store, "job", "failed", shards=11, every=EVERY)
    assert ends(manifest.checkpoints) == [(0, 4)]
    assert [record.shard for record in manifest.commits] == [4, 5, 6, 7]
    assert [record.shard for record in summarise(store, "job").commits] == list(range(8))


def test_ranges_of_another_size_do_not_overlap(store: ObjectStore) -> None:
    refs = checkpointed(store, *range(4, 8))
    assert range_of(refs, 6, 3, 11) == (4, 8)
    assert range_of(refs, 3, 3, 11) == (3, 4)
    assert range_of(refs, 8, 3, 11) == (8, 9)
    assert range_of(refs, 10, 3, 11) == (9, 11)
