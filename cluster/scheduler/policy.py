"""The scheduler's tuning parameters. Tuned on training days only (docs/scheduling.md)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Policy:
    """How the scheduler weighs joules against time. Shares are from 0 to 1."""

    # --- How much capacity to commit ---

    #: Committed capacity over the capacity that deadlines need.
    reserve: float = 1.05
    #: Share of the time to a deadline that is planned with; the rest is for failures.
    slack_share: float = 0.97
    #: Part of a replica by which demand may exceed capacity before another replica is committed.
    round_down: float = 0.0
    #: Wake further replicas while loading them takes at most this share of the work's energy.
    start_share: float = 0.02
    #: Without a warm replica, work waits, deadlines permitting, until it would keep one replica
    #: busy for this share of the time left.
    hold_fill: float = 0.8

    # --- Assignments and plans ---

    #: Length of an assignment, s.
    assignment_s: float = 10.0
    #: Assignments per replica: the next is there before the last ends.
    assignments: int = 2
    #: Time between plans while nothing happens, s.
    replan_s: float = 5.0
    #: A job without a deadline that has waited this long, in s, goes before later deadlines of its
    #: priority.
    turn_s: float = 86_400.0

    # --- Working ahead of expected work (docs/scheduling.md) ---

    #: Work ahead where a busy spell would raise the cost of an image at least by this factor.
    scarce: float = 1.5
    #: Pay at most this multiple of the cheapest image to work ahead.
    ahead_price: float = 4.0

    # --- Probes: measuring hardware of which only estimates are known ---

    #: Share of all energy spent that probes may take.
    probe_share: float = 0.02
    #: Length of a probe, s.
    probe_s: float = 5.0

    # --- Failures ---

    #: Failed attempts after which a shard is set aside.
    max_attempts: int = 3
    #: A job fails with more shards set aside than this number and ``set_aside_share``.
    max_set_aside: int = 10
    #: Share of a job's shards that may be set aside even if that is more than ``max_set_aside``.
    set_aside_share: float = 0.01
    #: Failures in a row, without a commit between, after which hardware is blocklisted for a
    #: model; at least one for each of its replicas.
    max_fruitless: int = 3
    #: How long a job waits without any replica that can run it before it fails, s.
    desert_s: float = 120.0

    # --- Idle and late replicas ---

    #: Longest time that a replica stays idle, even if idling costs nothing, s.
    longest_idle_s: float = 3600.0
    #: An assignment is late after this multiple of its predicted duration.
    late: float = 3.0
    #: After this time, in s, a late assignment is also run elsewhere, even without a deadline.
    late_alone_s: float = 300.0

    # --- Energy budgets ---

    #: Margin on the predicted energy of running work, as a share, when a budget is checked.
    budget_margin: float = 0.1
