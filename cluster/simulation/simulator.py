"""The simulator: drives a scheduler through a day of a fleet and accounts for its energy.

The scheduler gets the same events as in production. Its commands are checked: an impossible one
raises InvalidCommand at once. Nothing here reads a real clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from cluster.scenario.arrivals import Arrival
from cluster.scenario.faults import DAY_S, Faults
from cluster.scenario.fleet import FleetSpec
from cluster.scheduler import commands, events
from cluster.simulation.books import (
    InvalidCommand,
    JobBook,
    Scheduler,
    SimulationResult,
    SimulationStuck,
)
from cluster.simulation.world import World

NO_FAULTS = Faults()
GIVE_UP_S = 7 * DAY_S


def simulate(
    fleet: FleetSpec,
    arrivals: Sequence[Arrival],
    scheduler: Scheduler,
    *,
    faults: Faults = NO_FAULTS,
    seed: int = 0,
    horizon_s: float = DAY_S,
    bin_s: float = 600.0,
    script: Sequence[events.Event] = (),
) -> SimulationResult:
    """Simulate until every job has ended and the horizon is reached; energy is counted until then.

    script: further events for the scheduler, such as a cap, each at its time. Jobs unfinished a
    week after the horizon are given up. Raises InvalidCommand and SimulationStuck where the
    scheduler is at fault.
    """
    run = _Run(fleet, arrivals, scheduler, faults, seed, bin_s)
    for event in script:
        run.world.calendar.at(event.at_s, partial(run.tell, event))
    nodes = [f"{h.name}-{i}" for h in fleet.hardware for i in range(h.count)]
    for at_s, kind, node_id in faults.times(nodes, horizon_s, seed):
        run.world.calendar.at(at_s, partial(run.world.fault, kind, node_id))
    run.until(horizon_s)
    return run.result()


class _Run:
    """One run: carries the scheduler's commands out in the world."""

    def __init__(
        self,
        fleet: FleetSpec,
        arrivals: Sequence[Arrival],
        scheduler: Scheduler,
        faults: Faults,
        seed: int,
        bin_s: float,
    ) -> None:
        self.jobs = {arrival.job.job_id: JobBook(arrival) for arrival in arrivals}
        self.world = World(fleet, self.jobs, faults, seed, bin_s, self.tell)
        self._handle = scheduler.handle
        self._events = 0
        self._unfinished = len(self.jobs)
        self._reminder_s: float | None = None
        self._obey: dict[type, Callable[[Any], None]] = {
            commands.WakeReplica: lambda c: self.world.wake(c.replica_id, c.model),
            commands.ParkReplica: lambda c: self.world.park(c.replica_id),
            commands.RunAssignment: self._assignment,
            commands.RevokeAssignment: self._revoke,
            commands.FinishJob: self._finish,
            commands.TellUser: self._tell_user,
            commands.RemindMe: self._remind,
        }
        for hardware in fleet.hardware:
            for i in range(hardware.count):
                node_id = f"{hardware.name}-{i}"
                self._at(0.0, partial(self.world.join, node_id, hardware.name))
        for arrival in arrivals:
            event = events.JobSubmitted(arrival.at_s, arrival.job)
            self._at(arrival.at_s, partial(self.tell, event))

    def until(self, horizon_s: float) -> None:
        """Process the events up to this time."""
        calendar = self.world.calendar
        while (at_s := calendar.next_s()) is not None:
            if at_s > horizon_s and (not self._unfinished or at_s > horizon_s + GIVE_UP_S):
                break
            self.world.advance(at_s)
            calendar.pop()()
        if at_s is None and self._unfinished:
            waiting = [job_id for job_id, book in self.jobs.items() if book.finish is None]
            raise SimulationStuck(f"nothing is going on, and jobs are open: {waiting[:5]}")
        self.world.advance(max(horizon_s, calendar.now_s))
        self.world.close()

    def tell(self, event: events.Event) -> None:
        """Pass events to the scheduler and carry out its commands."""
        self._events += 1
        for command in self._handle(event):
            self._obey[type(command)](command)

    def _at(self, at_s: float, action: Callable[[], None]) -> None:
        self.world.calendar.at(at_s, action)

    def _assignment(self, command: commands.RunAssignment) -> None:
        self._book(command.job_id).assignment(command)
        self.world.run(command)

    def _revoke(self, command: commands.RevokeAssignment) -> None:
        now_s = self.world.calendar.now_s  # after this event, not in the midst of it
        self._at(now_s, partial(self.world.revoke, command.assignment_id))

    def _finish(self, command: commands.FinishJob) -> None:
        self._book(command.job_id).end(command)
        self._unfinished -= 1

    def _tell_user(self, command: commands.TellUser) -> None:
        self._book(command.job_id)

    def _remind(self, command: commands.RemindMe) -> None:
        at_s = max(command.at_s, self.world.calendar.now_s)
        if at_s != self._reminder_s:
            self._reminder_s = at_s
            self._at(at_s, partial(self._tick, at_s))

    def _tick(self, at_s: float) -> None:
        if self._reminder_s == at_s:  # else a later reminder has replaced it
            self._reminder_s = None
            self.tell(events.Tick(at_s))

    def _book(self, job_id: str) -> JobBook:
        if job_id not in self.jobs:
            raise InvalidCommand(f"there is no job {job_id!r}")
        return self.jobs[job_id]

    def result(self) -> SimulationResult:
        """The result of the day."""
        world = self.world
        energy = {
            h: {str(b): j for b, j in p.items()} for h, p in world.buckets.by_hardware.items()
        }
        return SimulationResult(
            jobs=list(self.jobs.values()),
            energy_by_hardware_j=energy,
            parked_j=world.parked_j,
            metered_j=world.power.energy_j,
            watts=world.power.watts_by_bin(),
            bin_s=world.power.bin_s,
            peak_w=world.peak_w,
            end_s=world.calendar.now_s,
            busy_s=world.busy_s,
            present_s=world.present_s,
            probed_images=world.probed_images,
            events=self._events,
            assignments=world.assignments,
            wakes=world.wakes,
        )
