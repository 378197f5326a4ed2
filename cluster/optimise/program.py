"""A sparse linear or mixed-integer program, and HiGHS (through scipy) to solve it."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array, csc_array

from cluster.errors import Fatal

Floats = NDArray[np.float64]
Status = Literal["optimal", "time_limit", "infeasible"]
_STATUS_OPTIMAL, _STATUS_LIMIT, _STATUS_INFEASIBLE, _STATUS_OTHER = 0, 1, 2, 4


@dataclass(frozen=True)
class Solved:
    """x: values of all columns, None where none were found. value: of the objective there.
    bound: no solution is better. gap: how far the value is above it, a share of the value."""

    status: Status
    x: Floats | None
    value: float
    bound: float

    @property
    def gap(self) -> float:
        if self.x is None:
            return math.inf
        return max(0.0, self.value - self.bound) / max(abs(self.value), 1e-12)


class Program:
    """Columns, which are at least 0 unless said otherwise, and rows between limits."""

    def __init__(self) -> None:
        self._costs: list[float] = []
        self._lower: list[float] = []
        self._upper: list[float] = []
        self._whole: list[bool] = []
        self._named: dict[str, list[int]] = defaultdict(list)
        self._cells: list[tuple[int, int, float]] = []
        self._limits: list[tuple[float, float]] = []
        self._matrix: csc_array | None = None

    @property
    def columns(self) -> int:
        return len(self._costs)

    @property
    def whole(self) -> list[int]:
        """The columns of whole numbers."""
        return [column for column, whole in enumerate(self._whole) if whole]

    def with_row(self, costs: Floats, most: float) -> Program:
        """The same program, in which these costs are at most so much. It shares the columns."""
        other = copy.copy(self)
        scale = float(np.abs(costs).max(initial=0.0)) / 1e3 or 1.0
        other._cells, other._limits = list(self._cells), list(self._limits)
        other.at_most([(int(c), costs[c] / scale) for c in np.flatnonzero(costs)], most / scale)
        return other

    def column(
        self,
        name: str,
        cost: float = 0.0,
        upper: float = math.inf,
        whole: bool = False,
        lower: float = 0.0,
    ) -> int:
        """A new column; its number. name: of the group whose cost ``cost_of`` adds up."""
        self._costs.append(cost)
        self._lower.append(lower)
        self._upper.append(upper)
        self._whole.append(whole)
        self._named[name].append(len(self._costs) - 1)
        return len(self._costs) - 1

    def row(self, cells: Iterable[tuple[int, float]], low: float, high: float) -> None:
        number = len(self._limits)
        self._cells += [(number, column, value) for column, value in cells]
        self._limits.append((low, high))
        self._matrix = None

    def at_most(self, cells: Iterable[tuple[int, float]], high: float = 0.0) -> None:
        self.row(cells, -math.inf, high)

    def equal(self, cells: Iterable[tuple[int, float]], value: float = 0.0) -> None:
        self.row(cells, value, value)

    def solve(self, exact: bool, time_limit_s: float) -> Floats:
        """The cheapest values of all columns, by their own costs. Raises Fatal."""
        solved, message = self._milp(np.array(self._costs), exact, {"time_limit": time_limit_s})
        if solved.status != "optimal" or solved.x is None:
            raise Fatal(f"the bound was not found: {message}")
        return solved.x

    def minimise(
        self,
        costs: Floats,
        *,
        time_limit_s: float,
        gap: float,
        free: Mapping[int, tuple[float, float]] | None = None,
        whole: bool = True,
    ) -> Solved:
        """The values that cost least. free: other bounds of some columns, for this time only.

        The program is solved again without presolve before it is called infeasible. whole: with
        integers. Raises Fatal if the solver fails for any reason but infeasibility and its limit.
        """
        scale = float(np.abs(costs).max(initial=0.0)) / 1e3 or 1.0
        options = {"time_limit": time_limit_s, "mip_rel_gap": gap}
        solved, message = self._milp(costs / scale, whole, options, free)
        if solved.status == "infeasible":
            solved, message = self._milp(costs / scale, whole, options | {"presolve": False}, free)
        if solved.status == "time_limit" and solved.x is None:
            raise Fatal(f"no plan was found within {time_limit_s:g} s: {message}; allow more time")
        return Solved(solved.status, solved.x, solved.value * scale, solved.bound * scale)

    def cost_of(self, name: str, x: Floats) -> float:
        columns = self._named[name]
        return float(np.array(self._costs)[columns] @ x[columns])

    def _milp(
        self,
        costs: Floats,
        whole: bool,
        options: dict[str, float | bool],
        free: Mapping[int, tuple[float, float]] | None = None,
    ) -> tuple[Solved, str]:
        lower, upper = np.array(self._lower), np.array(self._upper)
        for column, (low, high) in (free or {}).items():
            lower[column], upper[column] = low, high
        limits_low, limits_high = np.array(self._limits).T
        found = milp(
            costs,
            constraints=LinearConstraint(self._sparse(), limits_low, limits_high),
            bounds=Bounds(lower, upper),
            integrality=np.array(self._whole, dtype=int) if whole else None,
            options=options,
        )
        if found.status == _STATUS_INFEASIBLE or (
            found.status == _STATUS_OTHER and "nfeasible" in found.message
        ):
            return Solved("infeasible", None, math.inf, math.inf), found.message
        if found.status not in (_STATUS_OPTIMAL, _STATUS_LIMIT):
            raise Fatal(f"the solver failed: {found.message}")
        status: Status = "optimal" if found.status == _STATUS_OPTIMAL else "time_limit"
        if found.x is None:
            return Solved(status, None, math.inf, -math.inf), found.message
        value = float(found.fun)
        bound = getattr(found, "mip_dual_bound", None)
        return Solved(status, found.x, value, value if bound is None else float(bound)), ""

    def _sparse(self) -> csc_array:
        if self._matrix is None:
            rows, columns, values = zip(*self._cells, strict=True)
            shape = len(self._limits), len(self._costs)
            self._matrix = coo_array((values, (rows, columns)), shape=shape).tocsc()
        return self._matrix
