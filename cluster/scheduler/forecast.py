"""What work is to come, from what came at the same time of other days. Pure.

Images are counted in quarters of an hour, for each kind of work. A quarter is expected to bring the
mean of the same one, and of those around it, on the days before, of which the newest count most.
Only work with a deadline is counted: the rest waits for its turn anyway.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cluster.scheduler.request import JobRequest, Objective

Key = tuple[str, Objective]
DAY_S = 86_400.0
BIN_S = 900.0
BINS = int(DAY_S / BIN_S)
MEMORY = 0.8  # that a day counts of what the next one does
BLUR = 6  # bins to either side that tell something of a bin
WEIGHTS = [(shift, BLUR + 1 - abs(shift)) for shift in range(-BLUR, BLUR + 1)]
MOST_DAYS = 30  # without any work; whatever was before is forgotten by then


@dataclass(frozen=True)
class Expected:
    """Images that are to be there by ``stop_s``, and that had better be done by ``due_s``.

    unsure: the relative standard deviation of what comes in the time of a deadline.
    """

    stop_s: float
    images: float
    due_s: float
    unsure: float


class Usual(NamedTuple):
    """The same of a time of the day, ``due_s`` after its end."""

    images: float
    due_s: float
    unsure: float


class Bin(NamedTuple):
    """A quarter of an hour of the day: sums over days, newer ones counting more.

    squares: of jobs' images. slack: images times seconds to their deadline.
    """

    days: float = 0.0
    images: float = 0.0
    squares: float = 0.0
    slack: float = 0.0

    def with_day(self, today: Bin) -> Bin:
        """The sums when that day is over."""
        return Bin(
            MEMORY * self.days + 1.0,
            MEMORY * self.images + today.images,
            MEMORY * self.squares + today.squares,
            MEMORY * self.slack + today.slack,
        )


@dataclass
class Kind:
    """One kind of work: the bins of a day, from midnight UTC on, and the one that is open."""

    bins: list[Bin] = field(default_factory=lambda: [Bin()] * BINS)
    today: Bin = field(default_factory=Bin)

    def close(self, number: int) -> None:
        self.bins[number % BINS] = self.bins[number % BINS].with_day(self.today)
        self.today = Bin()

    def copy(self) -> Kind:
        return Kind(list(self.bins), self.today)


@dataclass(frozen=True)
class Habits:
    """What a forecast has learned. open_bin: the number of the one that is open, since 1970."""

    open_bin: int
    kinds: Mapping[Key, Kind]


class Forecast:
    """Learns from jobs as they come. Times are on the caller's clock, and never go back.

    epoch_s: what that clock shows at 0, in seconds since 1970: so that habits outlive the clock.
    habits: what was learned before. caution: how many standard deviations of what comes in the
    time of a deadline are kept clear of it.
    """

    def __init__(
        self, epoch_s: float = 0.0, habits: Habits | None = None, caution: float = 0.7
    ) -> None:
        self._epoch_s = epoch_s
        self._caution = caution
        self._open = habits.open_bin if habits else None
        kinds = habits.kinds.items() if habits else ()
        self._kinds = {key: kind.copy() for key, kind in kinds}
        self._usual: dict[Key, list[Usual]] = {}  # by bin; until one closes

    @property
    def habits(self) -> Habits | None:
        """What was learned until now; None if nothing."""
        if self._open is None:
            return None
        kinds = list(self._kinds.items())  # at once: the shell asks from another thread
        return Habits(self._open, {key: kind.copy() for key, kind in kinds})

    @staticmethod
    def of(past: Iterable[tuple[float, JobRequest]]) -> Forecast:
        """What these jobs teach, each with the time at which it came."""
        forecast = Forecast()
        for at_s, job in sorted(past, key=lambda entry: entry[0]):
            forecast.observe(at_s, job)
        return forecast

    def observe(self, at_s: float, job: JobRequest) -> None:
        """The job came then. Without a deadline it says nothing."""
        self._advance(at_s)
        if job.deadline_s is not None:
            kind = self._kinds.setdefault((job.model, job.objective), Kind())
            slack_s, today = max(0.0, job.deadline_s - at_s), kind.today
            kind.today = Bin(
                today.days,
                today.images + job.images,
                today.squares + float(job.images) ** 2,
                today.slack + job.images * slack_s,
            )

    def ahead(self, key: Key, now_s: float) -> list[Expected]:
        """What the next 24 hours will bring, in order; nothing until a whole day was seen."""
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
        """Bins that are over become history."""
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
    """What each bin of a day usually brings.

    Jobs that come at random and independently bring images in a time W with variance W times the
    mean rate of their squares (Campbell's theorem).
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
    """Each with those around it, the near ones counting more; a day is followed by a day."""
    whole = sum(weight for _, weight in WEIGHTS)
    return [
        sum(weight * values[(number + shift) % len(values)] for shift, weight in WEIGHTS) / whole
        for number in range(len(values))
    ]
