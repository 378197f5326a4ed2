"""The scheduler's parameters, tuned on training days only: docs/explanation/scheduling.md."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Policy:
    """How the scheduler weighs joules against time. Shares are from 0 to 1."""

    reserve: float = 1.05
    slack_share: float = 0.97
    round_down: float = 0.0
    start_share: float = 0.02
    hold_fill: float = 0.8
    assignment_s: float = 10.0
    assignments: int = 2
    replan_s: float = 5.0
    turn_s: float = 86_400.0
    scarce: float = 1.5
    ahead_price: float = 4.0
    probe_share: float = 0.02
    probe_s: float = 5.0
    max_attempts: int = 3
    max_set_aside: int = 10
    set_aside_share: float = 0.01
    max_fruitless: int = 3
    desert_s: float = 120.0
    longest_idle_s: float = 3600.0
    late: float = 3.0
    late_alone_s: float = 300.0
    budget_margin: float = 0.1
