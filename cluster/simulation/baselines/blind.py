"""Baselines that ignore hardware: equal pieces, every device warm and at full speed."""

from __future__ import annotations

import random

from cluster.scheduler.profiles import ProfileBook
from cluster.scheduler.request import Performance
from cluster.simulation.baselines.base import Baseline, Device, Job


class Blind(Baseline):
    """Pieces of the same size for all: ``lease_s`` of work on the average device."""

    def pick(self, devices: list[Device]) -> Device:
        raise NotImplementedError

    def choose(self, job: Job) -> tuple[Device, Performance] | None:
        devices = list(self.fits(job))
        if not devices:
            return None
        device = self.pick(devices)
        return device, self.fastest(device, job)

    def shards(self, job: Job, performance: Performance) -> int:  # noqa: ARG002
        rates = [self.fastest(device, job).images_per_s for device in self.fits(job)]
        mean = sum(rates) / len(rates)
        return max(1, round(self.assignment_s * mean / job.request.shard_images))


class Random(Blind):
    """Each piece to a random device."""

    def __init__(self, book: ProfileBook, models: tuple[str, ...]) -> None:
        super().__init__(book, models)
        self._rng = random.Random(0)

    def pick(self, devices: list[Device]) -> Device:
        return self._rng.choice(devices)


class RoundRobin(Blind):
    """Each piece to the next device."""

    _turn = 0

    def pick(self, devices: list[Device]) -> Device:
        self._turn += 1
        return devices[self._turn % len(devices)]


class LeastLoadedByCount(Blind):
    """Each piece to the device with the fewest pieces."""

    def pick(self, devices: list[Device]) -> Device:
        return min(devices, key=lambda device: device.pieces)
