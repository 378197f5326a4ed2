"""What a server needs of the world beside its store."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from cluster.actors.options import RunRequest
from cluster.progress import Snapshot


class Fleet(Protocol):
    """What runs jobs (``cluster.actors.served``). All raise FleetLost, when it is not known whether
    what was asked has been done."""

    def begin(self, run: RunRequest) -> bool: ...

    def stop(self, job_id: str, epoch: int, within_s: float, *, hurry: bool = False) -> None: ...

    def snapshots(self) -> dict[str, Snapshot]: ...

    def forget(self, job_id: str, epoch: int) -> None: ...


class Clock(Protocol):
    """monotonic_s: for durations; utc: for stamps and deadlines."""

    def monotonic_s(self) -> float: ...

    def utc(self) -> datetime: ...
