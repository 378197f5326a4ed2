"""Forecast of the work of the next 24 hours, from the same time of earlier days. Pure.

Images are counted per quarter of an hour (a bin) and kind of work (model, objective, encoding).
The forecast of a bin is the mean of that bin and its neighbours on earlier days; newer days count
more. Only work with a deadline is counted: other work is never urgent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cluster.scheduler.request import DemandKey, JobRequest

DAY_S = 86_400.0
BIN_S = 900.0
BINS = int(DAY_S / BIN_S)
MEMORY = 0.8  # weight of a day relative to the next one
BLUR = 6  # neighbouring bins on either side that are averaged into a bin
WEIGHTS = [(shift, BLUR + 1 - abs(shift)) for shift in range(-BLUR, BLUR + 1)]
MOST_DAYS = 30  # longest pause to account for: what was learned before has no weight by then


@dataclass(frozen=True)
class Expected:
    """Images expected to be submitted by ``stop_s``, which should be done by ``due_s``.

    unsure: relative standard deviation of the work that arrives within the time of a deadline.
    """

    stop_s: float
    images: float
    due_s: float
    unsure: float


class Usual(NamedTuple):
    """The forecast of one bin of the day. due_s: seconds from its end to when images are due."""

    images: float
    due_s: float
    unsure: float


class Bin(NamedTuple):
    """A quarter of an hour of the day: weighted sums over days, newer days counting more.

    squares: sum of the squares of the jobs' image counts. slack: images x seconds to deadline.
    """

    days: float = 0.0
    images: float = 0.0
    squares: float = 0.0
    slack: float = 0.0

    def with_day(self, today: Bin) -> Bin:
        """The sums after one more day, ``today``."""
        return Bin(
            MEMORY * self.days + 1.0,
            MEMORY * self.images + today.images,
            MEMORY * self.squares + today.squares,
            MEMORY * self.slack + today.slack,
        )


@dataclass
class Kind:
    """One kind of work: the bins of a day from midnight UTC, and the current bin's counts."""

    bins: list[Bin] = field(default_factory=lambda: [Bin()] * BINS)
    today: Bin = field(default_factory=Bin)

    def close(self, number: int) -> None:
        self.bins[number % BINS] = self.bins[number % BINS].with_day(self.today)
        self.today = Bin()

    def copy(self) -> Kind:
        return Kind(list(self.bins), self.today)


@dataclass(frozen=True)
class Habits:
    """What a forecast has learned, to be saved. open_bin: number of the current bin since 1970."""

    open_bin: int
    kinds: Mapping[DemandKey, Kind]


class Forecast:
    """Learns from jobs as they are submitted. Times are on the caller's clock and never go back.

    epoch_s: seconds since 1970 at zero of the caller's clock. habits: what an earlier run learned.
    caution: safety margin, in standard deviations of the work within the time of a deadline, by
    which expected work is planned to be done before it is due.
    """

    def __init__(
        self, epoch_s: float = 0.0, habits: Habits | None = None, caution: float = 0.7
    ) -> None:
        self._epoch_s = epoch_s
        self._caution = caution
        self._open = habits.open_bin if habits else None
        kinds = habits.kinds.items() if habits else ()
        self._kinds = {key: kind.copy() for key, kind in kinds}
        self._usual: dict[DemandKey, list[Usual]] = {}  # by bin; until one closes

    @property
    def habits(self) -> Habits | None:
        """What was learned so far; None before the first call of ``observe`` or ``ahead``."""
        if self._open is None:
            return None
        kinds = list(self._kinds.items())  # at once: the shell asks from another thread
        return Habits(self._open, {key: kind.copy() for key, kind in kinds})

    @staticmethod
    def of(past: Iterable[tuple[float, JobRequest]]) -> Forecast:
        """A forecast that has observed these (submission time, job)."""
        forecast = Forecast()
        for at_s, job in sorted(past, key=lambda entry: entry[0]):
            forecast.observe(at_s, job)
        return forecast

    def observe(self, at_s: float, job: JobRequest) -> None:
        """Learn from a job submitted at ``at_s``. Ignores jobs without a deadline."""
        self._advance(at_s)
        if job.deadline_s is not None:
            kind = self._kinds.setdefault(job.demand, Kind())
            slack_s, today = max(0.0, job.deadline_s - at_s), kind.today
            kind.today = Bin(
                today.days,
                today.images + job.images,
                today.squares + float(job.images) ** 2,
                today.slack + job.images * slack_s,
            )

    def ahead(self, key: DemandKey, now_s: float) -> list[Expected]:
        """The forecast of the next 24 hours by bin, in order; empty until a whole day was seen."""
        self._advance(now_s)
        kind = self._kinds.get(key)
        if kind is None or self._open is None or not all(b.days for b in kind.bins):
            return []
        if key not in self._usual:
            self._usual[key] = _usual(kind.bins, self._caution)
        found = []
        for number in range(self._open, self._open + BINS):
            usual, stop_s = self._usual[key][number % BINS], (number + 1) * BIN_S - self._epoch_s
            share = min(1.0, (stop_s - now_s) / BIN_S)
            if usual.images > 0 and share > 0:
                found.append(
                    Expected(stop_s, share * usual.images, stop_s + usual.due_s, usual.unsure)
                )
        return found

    def _advance(self, now_s: float) -> None:
        """Close the bins that have ended by ``now_s``."""
        number = math.floor((now_s + self._epoch_s) / BIN_S)
        if self._open is None:
            self._open = number
        for closed in range(max(self._open, number - MOST_DAYS * BINS), number):
            for kind in self._kinds.values():
                kind.close(closed)
        if number > self._open:
            self._open = number
            self._usual.clear()


def _usual(bins: Sequence[Bin], caution: float) -> list[Usual]:
    """The forecast of each bin of a day.

    If jobs arrive at random and independently, the variance of the images that arrive in a time W
    is W times the mean rate of the squares of jobs' image counts (Campbell's theorem).
    """
    images = _blurred([b.images / b.days for b in bins])
    slacks = _blurred([b.slack / b.days for b in bins])
    squares = sum(b.squares / b.days for b in bins) / DAY_S
    rate = sum(images) / DAY_S
    usual = []
    for amount, slack in zip(images, slacks, strict=True):
        slack_s = slack / amount if amount > 0 else 0.0
        unsure = math.sqrt(squares / slack_s) / rate if slack_s > 0 else 0.0
        usual.append(Usual(amount, slack_s * max(0.5, 1 - caution * unsure), unsure))
    return usual


def _blurred(values: Sequence[float]) -> list[float]:
    """Weighted mean of each value and its neighbours; the last value's neighbour is the first."""
    whole = sum(weight for _, weight in WEIGHTS)
    return [
        sum(weight * values[(number + shift) % len(values)] for shift, weight in WEIGHTS) / whole
        for number in range(len(values))
    ]
