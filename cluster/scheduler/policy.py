"""The policy's parameters, in one place. Tuned on training days only.

How, and what came of it: docs/explanation/scheduling.md.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Policy:
    """How the scheduler weighs joules against time.

    reserve: capacity committed over what deadlines need. slack_share: part of the time to a
        deadline that is planned with; the rest is for what goes wrong.
    round_down: how much of a replica the need may exceed the committed ones; it grows if it was
        wrong. start_share: further replicas are woken while loading takes no more than this part
        of the energy of the work they share. hold_fill: work without a warm replica waits, while
        its deadline allows, until it would keep one busy for this part of the time left.
    lease_s: work handed out at a time. assignments: outstanding per replica, so that the next is
        there before the last ends. replan_s: how often the plan is made anew while nothing happens.
    turn_s: a job without a deadline that has waited for so long goes before later deadlines of its
        priority.
    scarce: work is done ahead of what is expected where an image would cost this many times as
        much in a busy spell; at no more than ahead_price times the least that an image costs.
    probe_share: of all energy that may be spent on finding out what hardware does; probe_s: work
        of one probe.
    max_attempts: of one shard before it is set aside; more than max_set_aside of them, and more
        than set_aside_share of a job, and the job fails.
    max_fruitless: losses in a row of one hardware with one model, without a commit between, before
        it is barred (at least one loss for each of its replicas). desert_s: how long jobs wait
        where there is no replica at all.
    longest_idle_s: even where idling costs nothing.
    late: an assignment that takes this many times what was predicted is late. late_alone_s:
        after which it is run elsewhere even where no deadline asks for it.
    budget_margin: of the predicted energy of what is running, kept below an energy budget.
    """

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
