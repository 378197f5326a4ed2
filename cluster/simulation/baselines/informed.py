"""Baselines that use the speed or the energy of each kind of hardware."""

from __future__ import annotations

from cluster.scheduler.request import Performance
from cluster.simulation.baselines.base import SENT, Baseline, Device, Job
from cluster.states import ReplicaState

Choice = tuple[Device, Performance]


class LeastLoadedByWork(Baseline):
    """Each piece to the device that will finish its queue first; all devices are warm."""

    def choose(self, job: Job) -> Choice | None:
        device = min(self.fits(job), key=lambda device: device.work_s, default=None)
        return None if device is None else (device, self.fastest(device, job))


class WarmPull(Baseline):
    """Every device is warm and takes the next piece when it has room: an actor pool."""

    def choose(self, job: Job) -> Choice | None:
        free = [d for d in self.fits(job, SENT) if d.state.is_up]
        device = min(free, key=lambda device: device.pieces, default=None)
        return None if device is None else (device, self.fastest(device, job))


class PullAndPark(Baseline):
    """Like ``WarmPull``, but devices wake for work and park after a minute without any."""

    park_after_s = 60.0

    def choose(self, job: Job) -> Choice | None:
        device = min(self.fits(job, SENT), key=lambda device: device.pieces, default=None)
        return None if device is None else (device, self.fastest(device, job))


class FastestFirst(Baseline):
    """Each piece to the fastest device that has room; the others are woken as it needs them."""

    park_after_s = 60.0

    def choose(self, job: Job) -> Choice | None:
        choices = [(d, self.fastest(d, job)) for d in self.fits(job, SENT)]
        return max(choices, key=lambda choice: choice[1].images_per_s, default=None)


class LowestJoules(Baseline):
    """All work to the hardware with the lowest joules per image, however long it takes."""

    park_after_s = 60.0

    def choose(self, job: Job) -> Choice | None:
        choices = [(device, self.leanest(device, job)) for device in self.fits(job)]
        if not choices:
            return None
        lowest = min(performance.energy_per_image_j for _, performance in choices)
        best = [c for c in choices if c[1].energy_per_image_j <= lowest * (1 + 1e-9)]
        device, performance = min(best, key=lambda choice: choice[0].work_s)
        return (device, performance) if device.pieces < SENT else None


class EnergyAndLateness(Baseline):
    """argmin(e t + lambda lateness): the joules of a piece here, plus a price on being late.

    Each piece is placed by itself; other work with a deadline is not considered.
    """

    park_after_s = 60.0
    joules_per_late_s = 1e4

    def choose(self, job: Job) -> Choice | None:
        best: tuple[float, Choice] | None = None
        for device in self.fits(job):
            standby = self.standby(device, job)
            cold = not device.state.is_up and not device.pieces
            for performance in {self.fastest(device, job), self.leanest(device, job)}:
                energy_j = performance.power_w * self.assignment_s + (
                    standby.load_j if cold else 0.0
                )
                end_s = self.now_s + device.work_s + self.assignment_s
                end_s += standby.load_s if device.state != ReplicaState.AWAKE else 0.0
                late_s = max(0.0, end_s - (job.request.deadline_s or end_s))
                cost = energy_j + self.joules_per_late_s * late_s
                cost /= self.assignment_s * performance.images_per_s  # pieces differ in size
                if best is None or cost < best[0]:
                    best = cost, (device, performance)
        return None if best is None else best[1]
