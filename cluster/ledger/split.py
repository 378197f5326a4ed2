"""Dividing an interval's energy between those who used the device. Exact integers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cluster.ledger.usage import Interval, Use
from cluster.states import EnergyBucket

Key = tuple[EnergyBucket, str | None]
"""Who is charged: a bucket, and the attempt if it is one's."""

IDLE: Key = ("idle", None)
FOREIGN: Key = ("foreign", None)
_FULL = 1_000_000  # of a device: fractions are counted in millionths


@dataclass(frozen=True)
class Cover:
    """Who used the device in an interval.

    weights: of each share, in millionths of the device x ns.
    rates: the same per ns if they never changed in the interval, else None.
    kinds: the sorts of use, without regard to which attempt's.
    """

    weights: dict[Key, int]
    rates: dict[Key, int] | None
    kinds: frozenset[tuple[str, ...]]
    shared: bool

    def joined(self, later: Cover) -> Cover:
        weights = dict(self.weights)
        for key, weight in later.weights.items():
            weights[key] = weights.get(key, 0) + weight
        rates = self.rates if self.rates == later.rates else None
        return Cover(weights, rates, self.kinds | later.kinds, self.shared or later.shared)


def cover(interval: Interval, uses: Iterable[Use]) -> Cover:
    """The shares of an interval, by overlap in time x fraction of the device.

    Where uses ask for more than the whole device they get it in proportion. What they leave is
    the foreign process's if there is one, else idle.
    """
    start_ns, end_ns = interval.start_ns, interval.end_ns
    here = [
        use
        for use in uses
        if use.start_ns < end_ns and _end(use, end_ns) > max(use.start_ns, start_ns)
    ]
    edges = {start_ns, end_ns}
    for use in here:
        edges |= {max(use.start_ns, start_ns), min(_end(use, end_ns), end_ns)}
    weights: dict[Key, int] = {}
    kinds: set[tuple[str, ...]] = set()
    shared, rates = False, {}
    for a_ns, b_ns in pairwise(sorted(edges)):
        now = [use for use in here if use.start_ns <= a_ns and _end(use, end_ns) >= b_ns]
        rates = _rates(now)
        shared |= len(rates) > 1 or 0 < sum(use.bucket != "foreign" for use in now) < len(now)
        for key, rate in rates.items():
            weights[key] = weights.get(key, 0) + rate * (b_ns - a_ns)
        kinds |= {(use.bucket, use.work.job_id or "", use.replica_id) for use in now}
        kinds |= {key[:1] for key in rates if key[1] is None}
    steady = len(edges) == 2
    return Cover(weights, rates if steady else None, frozenset(kinds), shared)


def largest_remainder(total: int, weights: Sequence[int]) -> list[int]:
    """Whole parts of total >= 0, in proportion to the weights, that add up to it exactly.

    Each part is its quota rounded down; what is left goes, one each, to those that lost most by
    that (Hamilton's method).
    """
    whole = sum(weights)
    parts = [total * weight // whole for weight in weights]
    by_loss = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for i in by_loss[: total - sum(parts)]:
        parts[i] += 1
    return parts


@dataclass(frozen=True)
class Part:
    """Millijoules charged to one share. low_mj <= energy_mj <= high_mj where there are bounds."""

    energy_mj: int
    low_mj: int | None
    high_mj: int | None


def divide(interval: Interval, weights: Sequence[int]) -> list[Part]:
    """The interval's energy and bounds in parts; each of the three adds up exactly.

    Bounds are divided as distances from each other, which keeps them in order in every part.
    Raises ValueError for a gap: what is not known has no parts.
    """
    if interval.energy_mj is None:
        raise ValueError("a gap's energy cannot be divided")
    low_mj = interval.low_mj or 0
    lows = largest_remainder(low_mj, weights)
    rests = largest_remainder(interval.energy_mj - low_mj, weights)
    energies = [low + rest for low, rest in zip(lows, rests, strict=True)]
    highs: list[int | None] = [None] * len(energies)
    if interval.high_mj is not None:
        above = largest_remainder(interval.high_mj - interval.energy_mj, weights)
        highs = [energy + more for energy, more in zip(energies, above, strict=True)]
    bounded = interval.low_mj is not None
    return [
        Part(energy, low if bounded else None, high)
        for energy, low, high in zip(energies, lows, highs, strict=True)
    ]


def _rates(uses: Sequence[Use]) -> dict[Key, int]:
    """What each gets of the device, in millionths, while just these use it."""
    ours = [use for use in uses if use.bucket != "foreign"]
    fractions = [round(use.gpu_fraction * _FULL) for use in ours]
    asked = sum(fractions)
    rates: dict[Key, int] = {}
    for use, fraction in zip(ours, fractions, strict=True):
        key: Key = (use.bucket, use.attempt_id)
        rates[key] = rates.get(key, 0) + fraction * _FULL // max(asked, _FULL)
    if asked < _FULL - len(ours):  # else what is left is the rounding of, say, three thirds
        rates[FOREIGN if len(ours) < len(uses) else IDLE] = _FULL - asked
    return rates


def _end(use: Use, running_ns: int) -> int:
    return running_ns if use.end_ns is None else use.end_ns
