"""How a job ends in its store: what no commit vouches for is deleted, then manifest and marker."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from cluster.clock import utc_now
from cluster.energy import ZERO_ENERGY
from cluster.errors import Fatal
from cluster.states import TERMINAL, JobState
from cluster.storage.backoff import Backoff
from cluster.storage.checkpointing import catch_up
from cluster.storage.commit import create_once, parse_record
from cluster.storage.commits import CHECKPOINT_SHARDS, Commits, has_checkpoints, open_commits
from cluster.storage.layout import JobLayout, shard_of_attempt
from cluster.storage.object_store import ObjectStore
from cluster.types import Energy, Manifest, SetAside


def finalise(
    store: ObjectStore,
    job_id: str,
    state: JobState,
    *,
    shards: int | None = None,
    overhead: Energy = ZERO_ENERGY,
    set_aside: tuple[SetAside, ...] = (),
    drained: bool = False,
    backoff: Backoff | None = None,
    every: int = CHECKPOINT_SHARDS,
) -> Manifest:
    """End the job: delete objects that no commit names, write the manifest, then the marker.

    May be repeated and called concurrently: the first manifest stays and is returned to all.

    shards: how many the job has; "completed" with fewer commits is then Fatal.
    set_aside: the shards that the job ends without.
    overhead: energy that belongs to no shard, such as loading and warm-up.
    drained: no attempt of this job is running anywhere. Only then are attempts at shards
        without a commit deleted too. Otherwise a replica that does not know of the end might
        still commit one of them, and its record would name objects that are gone.

    every: of a job with more commits than these, all are put into checkpoints of so many shards,
        which the manifest names instead. No step holds more of them in memory.

    An attempt that outlives the end may write further objects after the deletion. They are
    harmless to readers, who trust commits only, and are deleted by whoever loses or repeats
    this call.
    """
    if state not in TERMINAL:
        raise Fatal(f"job {job_id} cannot end in state {state!r}")
    commits = open_commits(store, job_id, shards=shards, every=every)
    if state == JobState.COMPLETED and shards is not None and len(commits) != shards:
        raise Fatal(
            f"job {job_id} is not complete: the store has the commits of {len(commits)} of "
            f"{shards} shards; others were removed; `un0 resume {job_id}` makes what is missing"
        )
    if commits.checkpoints or has_checkpoints(len(commits), every):
        commits = catch_up(commits, every=every, backoff=backoff)
    _sweep(commits, drained=drained)
    layout = JobLayout(job_id)
    manifest = Manifest(
        job_id=job_id,
        state=state,
        images=commits.images,
        shards=len(commits) if shards is None else shards,
        commits=tuple(commits.read(commits.beside)),
        energy=commits.energy,
        overhead=overhead,
        set_aside=set_aside,
        finished_at=utc_now(),
        checkpoints=commits.checkpoints,
    )
    data = create_once(store, layout.manifest, manifest.model_dump_json().encode(), backoff=backoff)
    stored = parse_record(Manifest, layout.manifest, data)
    create_once(store, layout.marker(stored.state), b"", backoff=backoff)
    return stored


class Difference(NamedTuple):
    """An object under the attempts that is not as committed: its size in bytes as found, None if it
    is absent, and as committed, None if no commit vouches for it."""

    key: str
    found: int | None
    committed: int | None


def differences(store: ObjectStore, commits: Commits) -> Iterator[Difference]:
    """The attempts' objects against what the commits vouch for; both are streamed, by key.

    Raises Fatal if a commit vouches for an object that is not its shard's.
    """
    listed = ((i.key, i.size_bytes) for i in store.list(JobLayout(commits.job_id).attempts))
    ours = next(listed, None)
    for key, size_bytes in _ascending(commits):
        while ours is not None and ours[0] < key:
            yield Difference(ours[0], ours[1], None)
            ours = next(listed, None)
        if ours is None or ours[0] != key:
            yield Difference(key, None, size_bytes)
            continue
        if ours[1] != size_bytes:
            yield Difference(key, ours[1], size_bytes)
        ours = next(listed, None)
    for key, found in chain([] if ours is None else [ours], listed):
        yield Difference(key, found, None)


def _ascending(commits: Commits) -> Iterator[tuple[str, int]]:
    last = JobLayout(commits.job_id).attempts
    for key, size_bytes in commits.objects():
        if key <= last:
            raise Fatal(f"{key}: a commit of another shard, or a second one, vouches for it")
        last = key
        yield key, size_bytes


def _sweep(commits: Commits, *, drained: bool) -> None:
    garbage = []
    for key, found, committed in differences(commits.store, commits):
        if committed is not None:
            now = "absent" if found is None else found
            raise Fatal(f"{key}: committed with {committed} bytes, now {now}")
        shard = shard_of_attempt(key)
        if drained or (shard is not None and shard in commits.shards):
            garbage.append(key)
    for key in garbage:  # only now that nothing committed is known to be missing
        commits.store.delete(key)
