from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.clock import utc_now
from cluster.errors import CommitStateUnknown, Fatal
from cluster.storage.backoff import Backoff
from cluster.storage.commit import (
    commit,
    committed_shards,
    create_once,
    ended_state,
    read_commits,
    reopen,
)
from cluster.storage.finish import finalise
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.types import MISSING_ENERGY, CommitRecord, DataObject, Energy
from tests.support.faulty_store import FaultRates, FaultyStore

JOB = "job-1"
LAYOUT = JobLayout(JOB)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path))


def record(shard: int, attempt: str = "a", *, energy_mj: int = 1000) -> CommitRecord:
    return CommitRecord(
        job_id=JOB,
        shard=shard,
        start=shard * 10,
        stop=shard * 10 + 10,
        attempt_id=attempt,
        token=f"{attempt}-token",
        objects=(DataObject(key=LAYOUT.images(shard, attempt), size_bytes=4, sha256="0", rows=10),),
        rows=10,
        energy=Energy(energy_mj=energy_mj, quality="measured_counter", method="nvml"),
        model_rev="r",
        hardware="cpu",
        host_name="h",
        generate_s=0.5,
        committed_at=utc_now(),
    )


def attempt(store: ObjectStore, shard: int, name: str = "a") -> str:
    made = record(shard, name)
    store.put(made.objects[0].key, b"data")
    return commit(store, made)


def keys(store: ObjectStore, prefix: str = "") -> set[str]:
    return {info.key for info in store.list(prefix)}


def test_the_first_to_commit_wins_and_the_loser_leaves_nothing(store: ObjectStore) -> None:
    assert attempt(store, 3, "a") == "won"
    assert attempt(store, 3, "b") == "lost"
    assert read_commits(store, JOB)[3].attempt_id == "a"
    assert keys(store, LAYOUT.attempts) == {LAYOUT.images(3, "a")}


def test_committing_again_is_still_won(store: ObjectStore) -> None:
    made = record(0)
    assert [commit(store, made), commit(store, made)] == ["won", "won"]


def test_a_loser_never_deletes_what_the_winner_vouches_for(store: ObjectStore) -> None:
    """The same attempt begun twice, as a retried remote call does, writes the same keys."""
    attempt(store, 0, "a")
    twin = record(0, "a").model_copy(update={"token": "another"})
    assert commit(store, twin) == "lost"
    assert store.get(LAYOUT.images(0, "a")) == b"data"


def test_giving_up_names_the_key_and_the_last_error(store: ObjectStore) -> None:
    waits: list[float] = []
    dead = FaultyStore(store, 0, FaultRates(before=1.0))
    with pytest.raises(CommitStateUnknown, match=r"shard-00000007.json.*4 tries.*injected fault"):
        commit(dead, record(7), backoff=Backoff(4, base_s=1.0, cap_s=3.0, sleep=waits.append))
    assert len(waits) == 3
    assert all(0 <= wait <= limit for wait, limit in zip(waits, [2, 3, 3], strict=True))


def test_create_once_returns_what_stands(store: ObjectStore) -> None:
    assert create_once(store, "x", b"first") == b"first"
    assert create_once(store, "x", b"second") == b"first"


def test_commits_are_read_in_shard_order(store: ObjectStore) -> None:
    shards = [9, 2, 11, 100, 0, 5, 1]
    for shard in shards:
        attempt(store, shard)
    store.put(f"{LAYOUT.commits}notes.txt", b"someone's own file")
    assert committed_shards(store, JOB) == set(shards)
    assert list(read_commits(store, JOB)) == sorted(shards)
    assert read_commits(store, "another") == {}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "damaged"),
        (b'{"schema_version": 1', "damaged"),
        (b"[]", "damaged"),
        (record(1).model_dump_json().encode(), "shard 1"),
        (json.dumps({"schema_version": 2}).encode(), "newer version"),
        (record(0).model_dump_json().replace(JOB, "job-2").encode(), "job-2"),
    ],
)
def test_a_record_that_cannot_be_trusted_is_named(
    store: ObjectStore, content: bytes, said: str
) -> None:
    store.put(LAYOUT.commit(0), content)
    with pytest.raises(Fatal, match=said) as refused:
        read_commits(store, JOB)
    assert LAYOUT.commit(0) in str(refused.value)


def test_a_completed_job_holds_committed_objects_only(store: ObjectStore) -> None:
    for shard in (0, 1):
        attempt(store, shard)
    store.put(LAYOUT.images(1, "zombie"), b"half")
    overhead = Energy(energy_mj=5, quality="measured_counter", method="nvml")
    manifest = finalise(store, JOB, "completed", shards=2, overhead=overhead)
    assert (manifest.state, manifest.images, manifest.shards) == ("completed", 20, 2)
    assert manifest.energy.energy_mj == 2000
    assert manifest.overhead == overhead
    assert list(manifest.commits) == list(read_commits(store, JOB).values())
    assert keys(store, LAYOUT.attempts) == {LAYOUT.images(0, "a"), LAYOUT.images(1, "a")}
    assert ended_state(store, JOB) == "completed"
    assert LAYOUT.root + "_SUCCESS" in keys(store)
    # A zombie writes once more; ending the job again tidies up and changes nothing else.
    store.put(LAYOUT.images(1, "zombie"), b"half")
    assert finalise(store, JOB, "completed") == manifest
    assert LAYOUT.images(1, "zombie") not in keys(store)


def test_an_incomplete_job_cannot_complete(store: ObjectStore) -> None:
    attempt(store, 0)
    with pytest.raises(Fatal, match="1 of 2 shards"):
        finalise(store, JOB, "completed", shards=2)
    with pytest.raises(Fatal, match="running"):
        finalise(store, JOB, "running")
    assert ended_state(store, JOB) is None
    assert LAYOUT.manifest not in keys(store)


def test_a_committed_object_that_is_gone_or_short_stops_the_end(store: ObjectStore) -> None:
    attempt(store, 0)
    store.put(LAYOUT.images(0, "a"), b"cut")
    with pytest.raises(Fatal, match="4 bytes, now 3"):
        finalise(store, JOB, "completed")
    store.delete(LAYOUT.images(0, "a"))
    with pytest.raises(Fatal, match="now absent"):
        finalise(store, JOB, "completed")
    assert ended_state(store, JOB) is None


def test_an_attempt_that_may_still_commit_keeps_its_objects(store: ObjectStore) -> None:
    attempt(store, 0)
    late = record(1, "late")
    store.put(late.objects[0].key, b"data")
    store.put(LAYOUT.images(0, "zombie"), b"half")
    finalise(store, JOB, "cancelled", shards=2)
    assert keys(store, LAYOUT.attempts) == {LAYOUT.images(0, "a"), late.objects[0].key}
    assert commit(store, late) == "won"
    reopen(store, JOB)
    assert finalise(store, JOB, "completed", shards=2).images == 20


def test_a_drained_job_is_cleaned_whatever_its_end(store: ObjectStore) -> None:
    attempt(store, 0)
    store.put(LAYOUT.images(1, "crashed"), b"half")
    finalise(store, JOB, "failed", drained=True)
    assert keys(store, LAYOUT.attempts) == {LAYOUT.images(0, "a")}


@pytest.mark.parametrize("state", ["cancelled", "failed"])
def test_an_ended_job_can_be_reopened_and_completed(store: ObjectStore, state: str) -> None:
    attempt(store, 0)
    overhead = Energy(energy_mj=5, quality="measured_counter", method="nvml")
    ended = finalise(store, JOB, state, shards=2, overhead=overhead)  # type: ignore[arg-type]
    assert ended_state(store, JOB) == state
    before = reopen(store, JOB)
    assert before == ended
    assert ended_state(store, JOB) is None
    assert committed_shards(store, JOB) == {0}
    assert keys(store, LAYOUT.root) == {LAYOUT.commit(0), LAYOUT.images(0, "a")}
    assert reopen(store, JOB) is None
    attempt(store, 1)
    assert finalise(store, JOB, "completed", shards=2).state == "completed"


def test_a_cancel_request_of_an_older_version_stops_nothing(store: ObjectStore) -> None:
    """Nothing ever carried one out; a job of such a store is run and completed like any other."""
    request = f"{LAYOUT.root}control/cancel.json"
    store.put(request, b"{}")
    attempt(store, 0)
    finalise(store, JOB, "failed", shards=2)
    assert reopen(store, JOB) is not None
    attempt(store, 1)
    assert finalise(store, JOB, "completed", shards=2).state == "completed"
    assert ended_state(store, JOB) == "completed"
    assert request in keys(store)


def test_reopening_leaves_completed_jobs(store: ObjectStore) -> None:
    assert reopen(store, JOB) is None
    attempt(store, 0)
    done = finalise(store, JOB, "completed")
    before = keys(store)
    assert reopen(store, JOB) == done
    assert keys(store) == before


def test_a_crash_between_manifest_and_marker_is_mended_either_way(store: ObjectStore) -> None:
    attempt(store, 0)
    finalise(store, JOB, "cancelled")
    store.delete(LAYOUT.marker("cancelled"))
    assert reopen(store, JOB) is not None
    assert finalise(store, JOB, "completed").state == "completed"
    store.delete(LAYOUT.marker("completed"))
    assert reopen(store, JOB) is not None
    assert finalise(store, JOB, "completed").state == "completed"
    assert ended_state(store, JOB) == "completed"


def test_missing_energy_stays_missing_in_the_manifest(store: ObjectStore) -> None:
    made = record(0).model_copy(update={"energy": MISSING_ENERGY})
    store.put(made.objects[0].key, b"data")
    commit(store, made)
    attempt(store, 1)
    assert finalise(store, JOB, "completed").energy.energy_mj is None
