"""What a replica is asked to do and what it reports: values that travel, as few as will do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from cluster.energy import sum_energy
from cluster.ledger.usage import Outcome
from cluster.stage_times import StageTimes
from cluster.types import CommitRecord, Energy, Workload


@dataclass(frozen=True)
class Order:
    """An assignment: shards ``first`` up to, not including, ``stop`` of the workload, in order.

    attempts: what the ids of its attempts begin with, by which the coordinator knows its own.
    """

    assignment_id: int
    workload: Workload
    first: int
    stop: int
    attempts: str


@dataclass(frozen=True)
class Done:
    """Consecutive shards of an assignment that are committed, and what their attempts took.

    won: by these attempts; else others had committed them before.
    """

    assignment_id: int
    job_id: str
    first: int
    stop: int
    won: bool
    images: int
    generate_s: float
    energy: Energy


@dataclass(frozen=True)
class Failure:
    """Why it did not work. ``fatal``: it would not work elsewhere or again either. ``abandoned``:
    it was not to be."""

    reason: str
    fatal: bool
    abandoned: bool = False


@dataclass(frozen=True)
class Failed:
    """Consecutive shards of an assignment of which no attempt was committed."""

    assignment_id: int
    job_id: str
    first: int
    stop: int
    failure: Failure


@dataclass(frozen=True)
class Progress:
    """Of a job on a replica: images that are generated and not reported yet. trouble: what holds
    it up, if anything. times: of its stages there so far."""

    images: int
    trouble: str
    times: StageTimes = field(default_factory=StageTimes)


@dataclass(frozen=True)
class Report:
    """What has happened on a replica since its last report; without anything a heartbeat.

    under_way: by job. uncommitted: by assignment, attempts that the coordinator is to commit.
    records: the commits of jobs that have checkpoints.
    """

    under_way: dict[str, Progress] = field(default_factory=dict)
    done: tuple[Done, ...] = ()
    failed: tuple[Failed, ...] = ()
    uncommitted: tuple[tuple[int, CommitRecord], ...] = ()
    records: tuple[CommitRecord, ...] = ()


def done_of(assignment_id: int, record: CommitRecord, outcome: Outcome) -> Done:
    """The record's shard, which is committed."""
    return Done(
        assignment_id,
        record.job_id,
        record.shard,
        record.shard + 1,
        outcome == "won",
        record.rows,
        record.generate_s,
        record.energy,
    )


def merged(parts: Iterable[Done]) -> tuple[Done, ...]:
    """The same with neighbours as one, where their energies are known alike: nothing that one
    report says of a thousand shards costs its reader a thousand times as much."""
    runs: list[list[Done]] = []
    for part in sorted(parts, key=lambda part: (part.assignment_id, part.first)):
        if runs and _continues(runs[-1][-1], part):
            runs[-1].append(part)
        else:
            runs.append([part])
    return tuple(_as_one(run) for run in runs)


def _continues(last: Done, part: Done) -> bool:
    return (
        (last.assignment_id, last.stop, last.won) == (part.assignment_id, part.first, part.won)
        and last.energy.quality == part.energy.quality
    )  # fmt: skip


def _as_one(run: list[Done]) -> Done:
    if len(run) == 1:
        return run[0]
    return replace(
        run[0],
        stop=run[-1].stop,
        images=sum(part.images for part in run),
        generate_s=sum(part.generate_s for part in run),
        energy=sum_energy(part.energy for part in run),
    )
