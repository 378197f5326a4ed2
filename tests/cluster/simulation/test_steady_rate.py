"""The rate that changes least is the cheapest, if working faster is more expensive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from cluster.scheduler.demand import steady_rate


@dataclass(frozen=True)
class Work:
    """Images that wait or come, and by when which of them are due. Lists of (seconds, images).

    What comes does so evenly from one of the times to the next.
    """

    there: float
    to_come: list[tuple[float, float]]
    goals: list[tuple[float, float]]

    @property
    def turns(self) -> list[float]:
        return sorted({at_s for at_s, _ in [*self.to_come, *self.goals]})

    def come(self, at_s: float) -> float:
        times = sorted({0.0, *(t for t, _ in self.to_come)})
        by_then = [self.there + sum(n for t, n in self.to_come if t <= time) for time in times]
        return float(np.interp(at_s, times, by_then))

    def due(self, at_s: float) -> float:
        return sum(images for t, images in self.goals if t <= at_s)


@st.composite
def works(draw: st.DrawFn) -> Work:
    """Jobs at whole seconds, some of which are there: every image is due after it comes."""
    jobs = draw(
        st.lists(
            st.tuples(st.integers(0, 20), st.integers(1, 15), st.integers(1, 50)),
            min_size=1,
            max_size=8,
        )
    )
    there = sum(images for at, _, images in jobs if at == 0)
    return Work(
        float(there),
        [(float(at), float(images)) for at, _, images in jobs if at > 0],
        [(float(at + slack), float(images)) for at, slack, images in jobs],
    )


def followed(work: Work) -> list[tuple[float, float]]:
    """(seconds, rate) of each stretch, if the rate is asked for anew at every turn."""
    done, now_s, path = 0.0, 0.0, []
    for turn in work.turns:
        left = done
        goals = []
        for at_s, images in sorted(work.goals):
            met = min(left, images)
            left -= met
            if images > met + 1e-9:
                goals.append((at_s - now_s, images - met))
        later = sorted({at_s for at_s, _ in work.to_come if at_s > now_s})
        by_then = [work.come(at_s) for at_s in [now_s, *later]]
        to_come = [(at_s - now_s, more) for at_s, more in zip(later, np.diff(by_then), strict=True)]
        rate = steady_rate(work.come(now_s) - done, to_come, goals)
        path.append((turn - now_s, rate))
        done += rate * (turn - now_s)
        now_s = turn
    return path


@given(works())
def test_what_is_due_is_done_and_nothing_before_it_has_come(work: Work) -> None:
    done = 0.0
    for (seconds, rate), turn in zip(followed(work), work.turns, strict=True):
        done += rate * seconds
        assert work.due(turn) - 1e-6 <= done <= work.come(turn) + 1e-6


@given(works(), st.floats(0.1, 30.0), st.floats(0.1, 10.0))
def test_no_schedule_is_cheaper_however_much_dearer_faster_is(
    work: Work, cheap_rate: float, extra: float
) -> None:
    """An image costs 1, and ``extra`` more above a cheap rate: a linear program's optimum."""
    path = followed(work)
    cost = sum(s * (rate + extra * max(0.0, rate - cheap_rate)) for s, rate in path)
    assert cost == pytest.approx(least_cost(work, cheap_rate, extra), rel=1e-6, abs=1e-6)


def least_cost(work: Work, cheap_rate: float, extra: float) -> float:
    turns = work.turns
    seconds = np.diff([0.0, *turns])
    n = len(turns)
    cumulated = np.tril(np.ones((n, n))) * seconds  # images done by each turn, from rates
    both = np.hstack([cumulated, cumulated])
    limits = [work.come(turn) for turn in turns], [-work.due(turn) for turn in turns]
    solved = linprog(
        np.concatenate([seconds, (1 + extra) * seconds]),
        A_ub=np.vstack([both, -both]),
        b_ub=np.concatenate(limits),
        bounds=[(0, cheap_rate)] * n + [(0, None)] * n,
    )
    assert solved.success
    return float(solved.fun)


@given(works())
def test_without_a_forecast_what_is_there_is_done_at_the_least_rate_in_time(work: Work) -> None:
    there = sum(images for _, images in work.goals)
    least = max(work.due(at_s) / at_s for at_s, _ in work.goals)
    assert steady_rate(there, [], work.goals) == pytest.approx(least)
    assert steady_rate(there, [(1.0, 100.0)], [*work.goals, (500.0, 100.0)]) >= least - 1e-9
