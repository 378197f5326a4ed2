"""The least energy that any schedule needs: a linear or mixed-integer program.

The problem is unit commitment with storage. Time is cut into slots of D; per kind of hardware k,
model m and operating point c, with marginal power P, warm idle power I, load energy L, load time
tau:

    min   sum P/rate * x  +  sum I * w  +  sum L * z  +  penalty * sum u
    busy:  sum_c x/rate + l + w  =  D * y           time awake is work, loading or idling
    load:  e_t = e_t-1 + tau * z - l,   0 <= e_t <= tau * (z of the last tau/D slots)
    awake: b_t+1 = b_t + z - s,   b_t - s <= y <= b_t + z,   sum_m y <= n_k
    stock: q_t = q_t-1 + arrivals - in time - u,   0 <= q_t <= what is not due yet
    late:  v_t = v_t-1 + u - too late,   sum_kc x = sum of in time and too late

x: images made; l, w: device-seconds of loading and of idling; e: of loads begun, not done; b, y:
devices awake at a slot's start, and on average in it; z, s: woken and parked in it; q, v: images
waiting, in time and late; u: images that become late, where it cannot be helped.

It is a bound for every schedule that misses no deadline, because each simplification only gives
more room: arrivals count from the start of their slot, and deadlines until the end of theirs;
within a slot work may be anywhere; shards may be cut; parking is free; nothing fails; devices may
be parts of devices (not in the mixed-integer program); and the jobs of one model and slack are one
stock that is used in order of its deadlines.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cluster.optimise.program import Floats, Program
from cluster.scenario.arrivals import Arrival
from cluster.scenario.fleet import FleetSpec
from cluster.scheduler.profiles import Profile

LATE = 100.0  # times the dearest way to make an image: being late is never the cheaper one


@dataclass(frozen=True)
class Bound:
    """The least energy possible, by part. late_images: images that no schedule finishes in time.
    exact: for whole devices, not fractions of them."""

    job_j: float
    idle_j: float
    overhead_j: float
    late_images: float
    images: int
    exact: bool

    @property
    def energy_j(self) -> float:
        return self.job_j + self.idle_j + self.overhead_j


def lower_bound(
    fleet: FleetSpec,
    arrivals: Sequence[Arrival],
    *,
    slot_s: float = 300.0,
    exact: bool = False,
    time_limit_s: float = 60.0,
) -> Bound:
    """The bound for these jobs on this fleet. exact: with whole devices; for small cases only.

    Raises Fatal if it is not solved within the limit.
    """
    program = Program()
    parts = _Problem(program, fleet, arrivals, slot_s)
    x = program.solve(exact, time_limit_s)
    return Bound(
        program.cost_of("job", x),
        program.cost_of("idle", x),
        program.cost_of("overhead", x),
        sum(float(x[column]) * unit for column, unit in parts.late),
        sum(arrival.job.images for arrival in arrivals),
        exact,
    )


class _Problem:
    """Writes the fleet and its jobs into a program.

    Work is counted in seconds of the fastest device, so that all numbers are of a size.
    """

    def __init__(
        self, program: Program, fleet: FleetSpec, arrivals: Sequence[Arrival], slot_s: float
    ) -> None:
        self._add = program
        self._slot_s = slot_s
        models = {arrival.job.model for arrival in arrivals}
        profiles = [profile for profile in fleet.profiles() if profile.model in models]
        self._unit = {m: _most(profiles, m, "images_per_s") for m in models}
        self._dearest_j = {m: _most(profiles, m, "energy_per_image_j") for m in models}
        self._edges_s = _edges_s(profiles, arrivals, slot_s)
        self._made: dict[tuple[str, int], list[int]] = defaultdict(list)
        awake: dict[tuple[str, int], list[int]] = defaultdict(list)
        self.late: list[tuple[int, float]] = []
        devices = {hardware.name: hardware.count for hardware in fleet.hardware}
        for profile in profiles:
            for t, column in enumerate(self._commit(profile, devices[profile.hardware])):
                awake[profile.hardware, t].append(column)
        for (hardware, _), columns in awake.items():
            program.at_most([(column, 1.0) for column in columns], devices[hardware])
        self._share(arrivals)

    def _commit(self, profile: Profile, devices: int) -> list[int]:
        """The devices of one kind with one model: the columns of how many are awake, by slot."""
        add, standby, unit = self._add, profile.standby, self._unit[profile.model]
        span = math.ceil(standby.load_s / self._slot_s)
        at_start = add.column("state", upper=0.0)  # nothing is awake at first
        loading_before = add.column("state", upper=0.0)
        wakes: deque[int] = deque(maxlen=max(span, 1))
        columns = []
        for t, (start_s, end_s) in enumerate(pairwise(self._edges_s)):
            awake = add.column("state", upper=devices)
            woken = add.column("overhead", standby.load_j, whole=True)
            parked = add.column("state", whole=True)
            at_end = add.column("state", upper=devices, whole=True)
            add.equal([(at_end, 1.0), (at_start, -1.0), (woken, -1.0), (parked, 1.0)])
            add.at_most([(awake, 1.0), (at_start, -1.0), (woken, -1.0)])
            add.at_most([(at_start, 1.0), (parked, -1.0), (awake, -1.0)])

            loading, unloaded = add.column("state"), add.column("state")
            wakes.append(woken)
            add.equal(
                [(unloaded, 1.0), (loading, 1.0), (loading_before, -1.0), (woken, -standby.load_s)]
            )
            add.at_most([(unloaded, 1.0), *((column, -standby.load_s) for column in wakes)])

            idle = add.column("idle", standby.idle_w)
            busy = [(loading, 1.0), (idle, 1.0), (awake, start_s - end_s)]
            for performance in profile.curve:
                made = add.column("job", performance.energy_per_image_j * unit)
                self._made[profile.model, t].append(made)
                busy.append((made, unit / performance.images_per_s))
            add.equal(busy)
            columns.append(awake)
            at_start, loading_before = at_end, unloaded
        return columns

    def _share(self, arrivals: Sequence[Arrival]) -> None:
        """What is made goes to the stocks of waiting images: one per model and slack."""
        slots = len(self._edges_s) - 1
        stocks: dict[tuple[str, float], tuple[Floats, Floats]] = {}
        for arrival in arrivals:
            come, due = stocks.setdefault(_stock(arrival), (np.zeros(slots), np.zeros(slots)))
            come[self._slot(arrival.at_s, "right") - 1] += arrival.job.images
            deadline_s = arrival.job.deadline_s
            last = slots if deadline_s is None else self._slot(deadline_s, "left")
            due[last - 1] += arrival.job.images
        taken: dict[tuple[str, int], list[int]] = defaultdict(list)
        for (model, _), (come, due) in stocks.items():
            unit, zero = self._unit[model], self._add.column("state", upper=0.0)
            not_due = np.maximum(np.cumsum(come) - np.cumsum(due), 0.0) / unit
            late_j = LATE * self._dearest_j[model] * unit
            before, late_before = zero, zero
            for t in range(slots):
                in_time, too_late = self._add.column("state"), self._add.column("state")
                stock, late_stock = (
                    self._add.column("state", upper=float(not_due[t])),
                    self._add.column("state", upper=0.0 if t == slots - 1 else math.inf),
                )
                missed = self._add.column("late", late_j)
                self.late.append((missed, unit))
                leaving = [(stock, 1.0), (in_time, 1.0), (missed, 1.0), (before, -1.0)]
                self._add.equal(leaving, come[t] / unit)
                leaving = [(late_stock, 1.0), (too_late, 1.0), (missed, -1.0), (late_before, -1.0)]
                self._add.equal(leaving)
                taken[model, t] += [in_time, too_late]
                before, late_before = stock, late_stock
        for key, columns in taken.items():
            made = [(column, 1.0) for column in self._made[key]]
            self._add.equal([*made, *((column, -1.0) for column in columns)])

    def _slot(self, at_s: float, side: str) -> int:
        """How many slots have begun, or with side "left" are needed, by that time."""
        found = int(np.searchsorted(self._edges_s, at_s, side=side))  # type: ignore[call-overload]
        return min(max(found, 1), len(self._edges_s) - 1)


def _most(profiles: Sequence[Profile], model: str, figure: str) -> float:
    of_model = [profile for profile in profiles if profile.model == model]
    return max(float(getattr(performance, figure)) for p in of_model for performance in p.curve)


def _stock(arrival: Arrival) -> tuple[str, float]:
    deadline_s = arrival.job.deadline_s
    slack_s = math.inf if deadline_s is None else round(deadline_s - arrival.at_s)
    return arrival.job.model, slack_s


def _edges_s(profiles: Sequence[Profile], arrivals: Sequence[Arrival], slot_s: float) -> Floats:
    """The slots' edges: up to the last deadline, and a long slot for what has none or is late."""
    last_s = max(max(a.at_s, a.job.deadline_s or 0.0) for a in arrivals)
    slowest: dict[str, float] = {}
    for profile in profiles:
        lowest = min(performance.images_per_s for performance in profile.curve)
        slowest[profile.model] = min(slowest.get(profile.model, math.inf), lowest)
    alone_s = sum(arrival.job.images / slowest[arrival.job.model] for arrival in arrivals)
    loads_s = sum(profile.standby.load_s for profile in profiles)
    edges = slot_s * np.arange(math.ceil(last_s / slot_s) + 2, dtype=np.float64)
    return np.append(edges, edges[-1] + alone_s + loads_s + slot_s)
