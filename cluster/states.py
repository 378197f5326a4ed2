"""All states and energy buckets, and which state may follow which. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal


class JobState(StrEnum):
    """The state of a job. A run of the scheduler sees all of them; the store keeps the ends."""

    #: In the store without a recorded end: a run has it, or its last run stopped.
    INCOMPLETE = "incomplete"
    #: Submitted to the service; no server runs it yet, or the server that did is gone.
    QUEUED = "queued"
    #: A run has claimed it; no replica is ready yet.
    STARTING = "starting"
    #: A replica of the run has been ready.
    RUNNING = "running"
    #: The user asked the run to end; what is generated is committed.
    STOPPING = "stopping"
    #: The run ended on request. The job can be resumed; the store calls it ``incomplete``.
    STOPPED = "stopped"
    #: The user asked the service to pause it; what is generated is committed.
    PAUSING = "pausing"
    #: The run ended because of a limit, such as the energy budget, or on the user's request to the
    #: service. Resumable; ``incomplete`` where no service runs it.
    PAUSED = "paused"
    #: The user asked the service to end it for good.
    CANCELLING = "cancelling"
    #: Every shard is committed.
    COMPLETED = "completed"
    #: Every shard is committed or was set aside after repeated failures.
    COMPLETED_WITH_ERRORS = "completed_with_errors"
    #: The user ended it for good; what is committed stays.
    CANCELLED = "cancelled"
    #: It could not go on; the reason is kept.
    FAILED = "failed"
    #: Its deadline passed, and it was submitted to end then; what is committed stays.
    EXPIRED = "expired"

    @property
    def is_terminal(self) -> bool:
        """Whether the store records it as the job's end, in the manifest and a marker."""
        return self in TERMINAL


#: How a run may end a job.
JobEnd = Literal[
    JobState.COMPLETED,
    JobState.COMPLETED_WITH_ERRORS,
    JobState.STOPPED,
    JobState.CANCELLED,
    JobState.PAUSED,
    JobState.FAILED,
    JobState.EXPIRED,
]

TERMINAL = (
    JobState.COMPLETED,
    JobState.COMPLETED_WITH_ERRORS,
    JobState.CANCELLED,
    JobState.FAILED,
    JobState.EXPIRED,
)
#: The states in which a run is over.
ENDS = frozenset({*TERMINAL, JobState.STOPPED, JobState.PAUSED})

#: Which states may follow each while a command runs the job, and as the coordinator's runs go
#: through them. A terminal job but a completed one is reopened by ``un0 resume``.
NEXT_JOB_STATES: Mapping[JobState, frozenset[JobState]] = {
    JobState.INCOMPLETE: frozenset({JobState.STARTING}),
    JobState.STARTING: ENDS | {JobState.RUNNING, JobState.STOPPING},
    JobState.RUNNING: ENDS | {JobState.STOPPING},
    JobState.STOPPING: ENDS,
    JobState.STOPPED: frozenset({JobState.INCOMPLETE}),
    JobState.PAUSED: frozenset({JobState.INCOMPLETE}),
    JobState.COMPLETED: frozenset(),
    JobState.COMPLETED_WITH_ERRORS: frozenset({JobState.INCOMPLETE}),
    JobState.CANCELLED: frozenset({JobState.INCOMPLETE}),
    JobState.FAILED: frozenset({JobState.INCOMPLETE}),
    JobState.EXPIRED: frozenset({JobState.INCOMPLETE}),
}

_LOST = frozenset({JobState.QUEUED})  # its server is gone, or its Ray: it waits to be run on
_DONE = frozenset(TERMINAL)

#: Which states may follow each of a job that the service has. The end is the end there.
NEXT_SERVICE_STATES: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: _DONE | {JobState.STARTING, JobState.PAUSED, JobState.CANCELLING},
    JobState.STARTING: _DONE
    | _LOST
    | {JobState.RUNNING, JobState.PAUSING, JobState.PAUSED, JobState.CANCELLING},
    JobState.RUNNING: _DONE | _LOST | {JobState.PAUSING, JobState.PAUSED, JobState.CANCELLING},
    # Back to where it was: the pause was taken back before its server acted upon it.
    JobState.PAUSING: _DONE
    | _LOST
    | {JobState.STARTING, JobState.RUNNING, JobState.PAUSED, JobState.CANCELLING},
    JobState.PAUSED: _DONE | {JobState.QUEUED, JobState.CANCELLING},
    JobState.CANCELLING: _DONE,
    **{state: frozenset() for state in TERMINAL},
}


class ReplicaState(StrEnum):
    """The state of a slot's replica."""

    #: No process: the slot draws what it draws without a model.
    PARKED = "parked"
    #: A process starts, loads the model and warms up.
    WAKING = "waking"
    #: It takes work.
    AWAKE = "awake"
    #: Its process is being ended.
    PARKING = "parking"
    #: It died or fell silent; its slot is parked, or gone with its node.
    LOST = "lost"

    @property
    def is_up(self) -> bool:
        """Whether its process holds or loads a model."""
        return self in (ReplicaState.WAKING, ReplicaState.AWAKE)


#: Where a millijoule of the energy log goes; docs/reference/energy-log.md describes each.
EnergyBucket = Literal["job", "overhead", "wasted", "idle", "foreign", "gap"]
ENERGY_BUCKETS: tuple[EnergyBucket, ...] = ("job", "overhead", "wasted", "idle", "foreign", "gap")
