"""Signs of life of servers, and the runs of jobs that they hold.

A server counts up in an object of its own. Others hold it for dead once that has stood still for
long enough by *their* monotonic clock: clocks of two machines are never compared. A job is held by
the server that has claimed its newest epoch; taking it over is claiming the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal

from pydantic import NonNegativeInt, PositiveInt

from cluster.energy import ZERO_ENERGY, sum_energy
from cluster.errors import NotFound
from cluster.stage_times import Stage
from cluster.states import JobState
from cluster.storage.commit import parse_record
from cluster.storage.layout import SERVERS, JobLayout, server_key
from cluster.storage.object_store import ObjectStore
from cluster.types import SCHEMA_VERSION, Energy, Record, SetAside

SILENCE_S = 10.0  # a server that gives no sign of life for so long is dead to others


class Beat(Record):
    """A server's sign of life. count: grows with each. at: by its own clock, for people only."""

    schema_version: Literal[1] = SCHEMA_VERSION
    server_id: str
    count: NonNegativeInt
    host_name: str
    pid: PositiveInt
    address: str | None
    jobs: NonNegativeInt
    started_at: datetime
    at: datetime


class RunStatus(Record):
    """How a run of the service stands. Written by its server only, and replaced as it goes on.

    intent: the number of the intent that it has acted upon. eta_s: seconds from ``at``. in_flight:
    images generated and not committed. energy: of all commits; overhead: this run's, outside jobs.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    job_id: str
    epoch: PositiveInt
    server_id: str
    intent: NonNegativeInt
    state: JobState
    reason_code: str = ""
    reason: str = ""
    at: datetime
    started_at: datetime | None = None
    committed_images: NonNegativeInt = 0
    in_flight_images: NonNegativeInt = 0
    images_per_s: float | None = None
    eta_s: float | None = None
    energy: Energy | None = None
    overhead: Energy | None = None
    retries: NonNegativeInt = 0
    replicas: NonNegativeInt = 0
    bottleneck: Stage | None = None
    set_aside: tuple[SetAside, ...] = ()


class Liveness:
    """Which servers are alive, by the reader's monotonic clock.

    silence_s: a server whose count stands still for so long is dead. One that is seen for the
    first time is alive for that long.
    """

    def __init__(self, silence_s: float) -> None:
        self.silence_s = silence_s
        self._seen: dict[str, tuple[int, float]] = {}  # count, and since when it is that

    def see(self, beats: Mapping[str, Beat], now_s: float) -> None:
        """The beats as just read. A server without any is forgotten: it has signed off."""
        self._seen = {
            name: self._seen[name]
            if name in self._seen and self._seen[name][0] == beat.count
            else (beat.count, now_s)
            for name, beat in beats.items()
        }

    def is_alive(self, server_id: str, now_s: float) -> bool:
        """Whether it is, as far as is known. A server that was never seen is not."""
        if server_id not in self._seen:
            return False
        return now_s - self._seen[server_id][1] < self.silence_s


def put_beat(store: ObjectStore, beat: Beat) -> None:
    """Give a sign of life."""
    store.put(server_key(beat.server_id), beat.model_dump_json().encode())


def sign_off(store: ObjectStore, server_id: str) -> None:
    """The server ends in good order: others need not wait for its silence."""
    store.delete(server_key(server_id))


def read_beats(store: ObjectStore) -> dict[str, Beat]:
    """The last sign of life of every server, by its id."""
    return {beat.server_id: beat for beat in _read_all(store, SERVERS, Beat)}


def put_run(store: ObjectStore, status: RunStatus) -> None:
    """Write down how the run stands."""
    key = JobLayout(status.job_id).run(status.epoch)
    store.put(key, status.model_dump_json().encode())


def newest_run(store: ObjectStore, job_id: str) -> RunStatus | None:
    """How the job's newest run of the service stood when its server last wrote it; None before."""
    keys = [info.key for info in store.list(JobLayout(job_id).runs)]
    if not keys:
        return None
    return parse_record(RunStatus, keys[-1], store.get(keys[-1]))


def overhead_of_runs(store: ObjectStore, job_id: str, before: int | None = None) -> Energy:
    """What the service's runs of the job spent outside its images, as far as it is known.

    before: only runs of smaller epochs.
    """
    statuses = _read_all(store, JobLayout(job_id).runs, RunStatus)
    return sum_energy(
        [
            ZERO_ENERGY,
            *(
                status.overhead
                for status in statuses
                if (before is None or status.epoch < before)
                and status.overhead is not None
                and status.overhead.energy_mj is not None
            ),
        ]
    )


def _read_all(store: ObjectStore, prefix: str, kind: Any) -> list[Any]:
    found = []
    for info in store.list(prefix):
        with suppress(NotFound):
            found.append(parse_record(kind, info.key, store.get(info.key)))
    return found
