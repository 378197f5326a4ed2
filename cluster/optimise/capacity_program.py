"""The capacity plan as a mixed-integer program: what to keep, buy and retire; when to run.

Per group of alike nodes g, model m, operating point c and slot t of length D, on a cycle:

    min   weights . (J, USD, gCO2e), each the sum over g and t of
            parked * N  +  (idle - parked) * w  +  (load - parked) * tau/D * z
            +  sum_mc (P_mc - parked) * h_mc                        all times D, at the slot's price
          + per node and day: rent or capital of N, embodied carbon of n

    nodes:   N = owned + n - r;   sum_m b <= N;   sum_m y <= availability * N
    awake:   b_t+1 = b_t + z - s;   b_t - s <= y <= b_t + z         (b, z whole; cyclic in t)
    busy:    sum_c h + tau/D * z + w = y                            time awake has three uses
    stock:   q_t = q_t-1 + lambda * a_t - o_t;   0 <= q_t <= lambda * (a of the last k slots)
    made:    sum_gc rate * D * h = sum of o over the demands of m
    watts:   parked * N + sum_c (max(P, load) - parked) * v + (max(idle, load) - parked) * v0 <= W
             h <= v;   y, b_t, b_t+1 <= sum_c v + v0                (v, v0 whole; where a cap is)
    margin:  per loss l (none with the reserve rho; for n-1 one node of each group):
             sum_mc f <= availability * (N - [l = g] * has);   N <= most * has
             sum_gc rate * f >= steady_m * lambda * (1 + rho);   watts of f within each cap
    limits:  money, carbon and counts, each with a slack that is 0 unless it is asked for

N, n, r: nodes kept, new, retired. b, y: awake at the slot's start, and on average in it; z, s:
woken and parked in it; h: nodes at work at a point, w: idle with a model, on average. q: images
that wait; a: that come; o: that are done; k: whole slots to their deadline, rounded down. f: node
shares after a loss. steady: the least constant rate that meets the deadlines, so that margin holds
at every hour; it is exact for one model, and safe for several, whose peaks may not coincide.

Within a slot work flows evenly, so that backlog meets each deadline at every moment, not on the
daily mean. A node awake for part of a slot pays for that part, as it does in the simulator; nodes
that run at once under a cap are whole. A node loads within a slot: tau <= D.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cluster.optimise.capacity import Cap, Group, Point, Problem, cyclic
from cluster.optimise.program import Floats, Program

Cells = list[tuple[int, float]]


@dataclass
class Commit:
    """Columns of a group with one model in one slot. begun: awake at its start; None, as woken,
    where loading is free. points: of the group's operating points for the model."""

    begun: int | None
    woken: int | None
    awake: int
    idle: int
    points: list[tuple[Point, int]]


class Capacity:
    """The program and the columns that callers ask for. change: whether nodes come and go."""

    def __init__(self, problem: Problem, change: bool = True) -> None:
        self.problem, self.program = problem, Program()
        self._costs: dict[str, dict[int, float]] = {"energy": {}, "money": {}, "carbon": {}}
        self.scale = self.program.column("scale", lower=1.0, upper=1.0)
        self.reserve = self.program.column("reserve", lower=problem.reserve, upper=problem.reserve)
        self.slack = {cap.name: self._slack(cap) for cap in problem.caps}
        self.kept: list[int] = []
        self.new: list[int] = []
        self.retired: list[int] = []
        for group in problem.groups:
            self._nodes(group, change)
        self.at: dict[tuple[int, str, int], Commit] = {}
        self._capped = {i for cap in problem.caps if cap.kind == "power_w" for i in cap.members}
        self._watts: dict[tuple[int, int], Cells] = {}
        for number in range(len(problem.groups)):
            self._commit(number)
        self._share()
        if problem.reserve:
            self._margin(None)
        if problem.n_minus:
            for number in range(len(problem.groups)):
                self._margin(number)
        for cap in problem.caps:
            self._limit(cap)

    def costs(self, name: str) -> Floats:
        """Per unit of each column: J (energy), USD (money) or gCO2e (carbon)."""
        found = np.zeros(self.program.columns)
        for column, cost in self._costs[name].items():
            found[column] = cost
        return found

    def objective(self) -> Floats:
        weights = self.problem.weights
        named = (("energy", weights.energy), ("money", weights.money), ("carbon", weights.carbon))
        total = np.zeros(self.program.columns)
        for name, weight in named:
            if weight:
                total += weight * self.costs(name)
        return total

    def _slack(self, cap: Cap) -> int:
        return self.program.column("slack", upper=0.0, whole=cap.kind == "count")

    def _nodes(self, group: Group, change: bool) -> None:
        comes = self.problem.useful_nodes(group) if change and group.may_grow else 0
        goes = group.owned if change and group.may_retire else 0
        new = self.program.column("nodes", upper=comes, whole=True)
        retired = self.program.column("nodes", upper=goes, whole=True)
        kept = self.program.column("nodes")
        self.program.equal([(kept, 1.0), (new, -1.0), (retired, 1.0)], group.owned)
        self._price("money", kept, group.keep_owned_usd)
        self._price("money", new, group.keep_new_usd - group.keep_owned_usd)
        self._price("carbon", new, group.embodied_g)
        for t in range(self.problem.slots):
            self._draw(group, t, kept, group.parked_w)
        self.kept.append(kept)
        self.new.append(new)
        self.retired.append(retired)

    def _price(self, name: str, column: int, cost: float) -> None:
        costs = self._costs[name]
        costs[column] = costs.get(column, 0.0) + cost

    def _draw(self, group: Group, t: int, column: int, watts: float) -> None:
        """A unit of the column draws so much for the slot."""
        energy_j = watts * self.problem.slot_s
        self._price("energy", column, energy_j)
        self._price("money", column, energy_j * group.usd_per_j[t])
        self._price("carbon", column, energy_j * group.g_per_j[t])

    def _commit(self, number: int) -> None:
        group, add, slots = self.problem.groups[number], self.program, self.problem.slots
        load = group.load_s / self.problem.slot_s
        free = load == 0.0
        models = [m for m in self.problem.models if group.fastest(m)]
        for model in models:
            points = [point for point in group.points if point.model == model]
            begun = [None if free else add.column("state", whole=True) for _ in range(slots)]
            for t in range(slots):
                awake, idle = add.column("state"), add.column("state")
                woken = None if free else add.column("state", whole=True)
                work = [(point, add.column("state")) for point in points]
                busy = [(idle, 1.0), (awake, -1.0), *((column, 1.0) for _, column in work)]
                now, then = begun[t], begun[(t + 1) % slots]
                if woken is not None and now is not None and then is not None:
                    parked = add.column("state")
                    self._draw(group, t, woken, (group.load_w - group.parked_w) * load)
                    busy.append((woken, load))
                    if slots > 1:
                        add.equal([(then, 1.0), (now, -1.0), (woken, -1.0), (parked, 1.0)])
                    else:
                        add.equal([(woken, 1.0), (parked, -1.0)])
                    add.at_most([(awake, 1.0), (now, -1.0), (woken, -1.0)])
                    add.at_most([(now, 1.0), (parked, -1.0), (awake, -1.0)])
                add.equal(busy)
                self._draw(group, t, idle, group.idle_w - group.parked_w)
                for point, column in work:
                    self._draw(group, t, column, point.power_w - group.parked_w)
                self.at[number, model, t] = Commit(now, woken, awake, idle, work)
        kept = self.kept[number]
        for t in range(slots):
            here = [self.at[number, model, t] for model in models]
            if not here:
                continue
            add.at_most([*((c.awake, 1.0) for c in here), (kept, -group.availability)])
            if not free:
                add.at_most([*_ones(c.begun for c in here), (kept, -1.0)])
            if number in self._capped:
                self._watts[number, t] = self._whole_nodes(number, t, models)

    def _whole_nodes(self, number: int, t: int, models: list[str]) -> Cells:
        """Watts above parked of the whole nodes that may run at once in this slot."""
        group, add, cells = self.problem.groups[number], self.program, Cells()
        for model in models:
            commit = self.at[number, model, t]
            after = self.at[number, model, (t + 1) % self.problem.slots]
            idle = add.column("state", whole=True)
            cells.append((idle, max(group.idle_w, _load_w(group)) - group.parked_w))
            running = [(idle, -1.0)]
            for point, column in commit.points:
                at_once = add.column("state", whole=True)
                add.at_most([(column, 1.0), (at_once, -1.0)])
                cells.append((at_once, max(point.power_w, _load_w(group)) - group.parked_w))
                running.append((at_once, -1.0))
            for column in {commit.awake, *_some(commit.begun), *_some(after.begun)}:
                add.at_most([(column, 1.0), *running])
        return cells

    def _share(self) -> None:
        """What is made goes to the stocks of waiting images: one per model and wait."""
        problem, add = self.problem, self.program
        stocks: dict[tuple[str, int], Floats] = {}
        for demand in problem.demands:
            stock = stocks.setdefault((demand.model, demand.slots), np.zeros(problem.slots))
            stock += np.array(demand.images)
        taken: dict[tuple[str, int], Cells] = defaultdict(list)
        for (model, wait), images in sorted(stocks.items()):
            come = images / (problem.fastest(model) * problem.slot_s)
            most = cyclic(come.tolist(), wait)
            waiting = [add.column("state") for _ in range(problem.slots)]
            for t, column in enumerate(waiting):
                done = add.column("state")
                before = waiting[t - 1]
                scale = (self.scale, -float(come[t]))
                cells = [(done, 1.0), scale]
                if column != before:
                    cells += [(column, 1.0), (before, -1.0)]
                add.equal(cells)
                add.at_most([(column, 1.0), (self.scale, -float(most[t]))])
                taken[model, t].append((done, -1.0))
        for (model, t), cells in taken.items():
            add.equal([*self._made(model, t), *cells])

    def _made(self, model: str, t: int) -> Cells:
        fastest = self.problem.fastest(model)
        return [
            (column, point.images_per_s / fastest)
            for number in range(len(self.problem.groups))
            if (commit := self.at.get((number, model, t))) is not None
            for point, column in commit.points
        ]

    def _margin(self, lost: int | None) -> None:
        """Every model's steady rate: with the reserve, or after the loss of one node."""
        problem, add = self.problem, self.program
        made: dict[str, Cells] = defaultdict(list)
        watts: dict[int, Cells] = defaultdict(list)
        for number, group in enumerate(problem.groups):
            shares: Cells = []
            for point in group.points:
                if point.model not in problem.models:
                    continue
                share = add.column("margin")
                shares.append((share, 1.0))
                made[point.model].append((share, point.images_per_s / problem.fastest(point.model)))
                watts[number].append((share, point.power_w - group.parked_w))
            there = (self.kept[number], -group.availability)
            if number == lost:
                most = float(group.owned + problem.useful_nodes(group))
                has = add.column("margin", upper=1.0, whole=True)
                add.at_most([(self.kept[number], 1.0), (has, -most)])
                shares.append((has, group.availability))
            add.at_most([*shares, there])
        for model in problem.models:
            need = problem.steady_rate(model) / problem.fastest(model)
            cells = [
                *made[model],
                (self.scale, -need * (1.0 + (problem.reserve if lost is None else 0.0))),
            ]
            if lost is None:
                cells.append((self.reserve, -need))
            add.row(cells, -need * problem.reserve if lost is None else 0.0, math.inf)
        for cap in problem.caps:
            if cap.kind == "power_w":
                drawn = [cell for i in cap.members for cell in watts[i]]
                self._cap_row(cap, [*drawn, *self._parked(cap)])

    def _parked(self, cap: Cap) -> Cells:
        return [(self.kept[i], self.problem.groups[i].parked_w) for i in cap.members]

    def _cap_row(self, cap: Cap, cells: Cells) -> None:
        self.program.at_most([*cells, (self.slack[cap.name], -1.0)], cap.most)

    def _limit(self, cap: Cap) -> None:
        if cap.kind == "count":
            self._cap_row(cap, [(self.kept[i], 1.0) for i in cap.members])
        elif cap.kind == "power_w":
            for t in range(self.problem.slots):
                drawn = [cell for i in cap.members for cell in self._watts.get((i, t), [])]
                self._cap_row(cap, [*drawn, *self._parked(cap)])
        else:
            name = "money" if cap.kind == "usd_per_day" else "carbon"
            self._cap_row(cap, [(c, cost) for c, cost in self._costs[name].items() if cost])


def _load_w(group: Group) -> float:
    """Power while it loads, if it ever does."""
    return group.load_w if group.load_s else group.parked_w


def _some(column: int | None) -> list[int]:
    return [] if column is None else [column]


def _ones(columns: Iterable[int | None]) -> Cells:
    return [(column, 1.0) for column in columns if column is not None]
