"""What a job's manifest and checkpoints say of its commits, against the commit records."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from cluster.errors import Fatal, NotFound
from cluster.scheduler.ranges import Ranges, runs
from cluster.states import JobState
from cluster.storage.checkpoint import read_checkpoint
from cluster.storage.checkpoint_header import key_of
from cluster.storage.checks import differing, manifest_faults, ranges
from cluster.storage.commit import ended_state, parse_record
from cluster.storage.commit_table import records_of
from cluster.storage.commits import Commits, commits_of, open_commits
from cluster.storage.finish import differences
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.types import CheckpointRef, CommitRecord, Manifest, Workload


class Named:
    """The commits that a job's manifest names, if it is completed; else those in checkpoints.

    problems: what is wrong with manifest and checkpoints so far, a line each.
    """

    def __init__(self, store: ObjectStore, workload: Workload) -> None:
        self._store, self._layout = store, JobLayout(workload.job_id)
        self.problems: list[str] = []
        self._commits: Commits | None = None
        self._completed = ended_state(store, workload.job_id) == JobState.COMPLETED
        if self._completed:
            self._commits = self._of_manifest()
        else:
            found = open_commits(store, workload.job_id, shards=workload.num_shards)
            self._commits = found if found.checkpoints else None
            self.problems += found.faults

    def _of_manifest(self) -> Commits | None:
        key = self._layout.manifest
        try:
            manifest = parse_record(Manifest, key, self._store.get(key))
        except (Fatal, NotFound) as error:
            marker = self._layout.marker(JobState.COMPLETED)
            self.problems.append(f"{marker} without a good manifest: {error}")
            return None
        if manifest.state != JobState.COMPLETED:
            self.problems.append(
                f"{key}: its state is {manifest.state}, though the job is completed"
            )
        commits = commits_of(self._store, manifest)
        self.problems += manifest_faults(manifest, commits.images, commits.energy)
        return commits

    def differing(
        self, records: Iterable[CommitRecord], shards: Sequence[int] | None
    ) -> Iterator[str]:
        """Go through the records, which ascend by shard; then a line for each place that says
        something else of some. shards: which they are at most; None: all of the job."""
        unread = Ranges()
        found = list(differing(self._listed(shards, unread), records))
        if self._commits is None:
            return
        places: dict[str, list[int]] = defaultdict(list)
        for shard in found:
            place = self._place(shard)
            if place is not None and shard not in unread:
                places[place].append(shard)
        for place, those in places.items():
            yield f"{place}: it differs from the commit records of shards {ranges(those)}"

    def left_over(self) -> Iterator[str]:
        """Of a completed job: the objects that no commit vouches for, a line each."""
        if self._commits is None or not self._completed:
            return
        try:
            for key, _, committed in differences(self._store, self._commits):
                if committed is None:
                    yield f"{key}: left over: the job is completed and no commit vouches for it"
        except (Fatal, NotFound) as error:
            yield f"{error}; what is left over was not looked for"

    def _listed(self, shards: Sequence[int] | None, unread: Ranges) -> Iterator[CommitRecord]:
        commits = self._commits
        if commits is None:
            return
        wanted = None if shards is None else Ranges(runs(shards))
        for piece in commits.pieces():
            beside = commits.read(piece.beside) if self._completed else iter(())
            held = self._held(piece.checkpoint, wanted, unread) if piece.checkpoint else []
            yield from heapq.merge(held, beside, key=lambda record: record.shard)

    def _held(
        self, ref: CheckpointRef, wanted: Ranges | None, unread: Ranges
    ) -> list[CommitRecord]:
        if wanted is not None and not wanted.overlaps(ref.first, ref.stop):
            return []
        try:
            return list(records_of(read_checkpoint(self._store, ref)))
        except (Fatal, NotFound, ValueError) as error:
            self.problems.append(str(error))
            unread.add(ref.first, ref.stop)
            return []

    def _place(self, shard: int) -> str | None:
        """The key of what speaks of the shard; None if nothing need."""
        assert self._commits is not None
        for ref in self._commits.checkpoints:
            if any(first <= shard < stop for first, stop in ref.shards):
                return key_of(ref)
        return self._layout.manifest if self._completed else None
