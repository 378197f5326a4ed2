"""What a server decides: never what could do harm, and always something until a job is at rest."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cluster.states import TERMINAL, JobState
from jobs.server.decide import (
    ABANDON_S,
    HURRY_S,
    MOST_FAILURES,
    Action,
    Facts,
    Holder,
    Run,
    decide,
)

RUN_STATES = (
    JobState.STARTING,
    JobState.RUNNING,
    JobState.STOPPING,
    JobState.STOPPED,
    JobState.PAUSED,
    JobState.COMPLETED,
    JobState.FAILED,
)
EPOCHS = st.integers(0, 3)
RUNS = st.none() | st.builds(Run, st.integers(1, 3), st.sampled_from(RUN_STATES))
FACTS = st.builds(
    Facts,
    wanted=st.sampled_from([None, "run", "pause", "cancel"]),
    intent=st.integers(1, 3),
    end=st.none() | st.sampled_from(TERMINAL),
    epoch=EPOCHS,
    holder=st.sampled_from(Holder),
    run=RUNS,
    begun=EPOCHS,
    dropped=EPOCHS,
    paused=st.none() | st.integers(0, 3),
    overdue=st.booleans(),
    stopping_s=st.none() | st.sampled_from([0.0, HURRY_S, ABANDON_S]),
    hurried=st.booleans(),
    ready=st.booleans(),
    may_claim=st.booleans(),
    failures=st.integers(0, MOST_FAILURES),
)
FINAL = (Action.CANCEL, Action.EXPIRE, Action.FAIL)


@given(FACTS)
def test_what_another_server_has_is_its_own_to_run_and_end(facts: Facts) -> None:
    if facts.holder == Holder.ALIVE:
        assert decide(facts) in (Action.LEAVE, Action.DROP, Action.CLEAN)


@given(FACTS)
def test_only_the_newest_claim_begins_stops_and_ends(facts: Facts) -> None:
    if facts.holder != Holder.ME:
        assert decide(facts) in (Action.LEAVE, Action.DROP, Action.CLEAN, Action.CLAIM)


@given(FACTS)
def test_what_has_ended_is_never_begun_nor_ended_again(facts: Facts) -> None:
    if facts.end is not None:
        assert decide(facts) in (Action.LEAVE, Action.DROP, Action.CLEAN)
    else:
        assert decide(facts) != Action.CLEAN


@given(FACTS)
def test_a_job_that_is_not_the_services_is_left_alone(facts: Facts) -> None:
    assert decide(replace(facts, wanted=None)) == Action.LEAVE


@given(FACTS)
def test_a_run_is_begun_only_if_it_is_wanted_and_once_under_a_claim(facts: Facts) -> None:
    if decide(facts) != Action.BEGIN:
        return
    assert facts.wanted == "run"
    assert not facts.overdue
    assert not facts.begun
    assert facts.dropped != facts.epoch
    if facts.under_way is not None:  # to go on with what another server has begun
        assert facts.under_way.epoch < facts.epoch


@given(FACTS)
def test_a_job_ends_for_the_reason_that_it_has_and_with_nothing_under_way(facts: Facts) -> None:
    action = decide(facts)
    if action in (*FINAL, Action.PAUSE):
        assert facts.under_way is None
    if action == Action.CANCEL:
        assert facts.wanted == "cancel"
    if action == Action.EXPIRE:
        assert facts.overdue
    if action == Action.FAIL:
        assert facts.failures >= MOST_FAILURES
        assert facts.wanted == "run"


@given(FACTS)
def test_cancel_wins(facts: Facts) -> None:
    """Nothing that is decided keeps a job that is to be cancelled from its end."""
    if facts.wanted == "cancel":
        assert decide(facts) not in (Action.BEGIN, Action.PAUSE, Action.EXPIRE, Action.FAIL)


@given(FACTS)
def test_nobody_claims_unheard_nor_over_a_run_of_its_own(facts: Facts) -> None:
    if decide(facts) == Action.CLAIM:
        assert facts.may_claim
        assert facts.holder != Holder.ALIVE
        assert not (facts.holder == Holder.ME and facts.under_way)


@given(FACTS)
def test_a_stop_has_an_end(facts: Facts) -> None:
    """A run that was asked to end is dropped when its time is up, whatever it says."""
    late = replace(facts, stopping_s=ABANDON_S, holder=Holder.ME, end=None)
    late = replace(late, begun=late.epoch if late.begun else 0)
    if late.under_way is not None and late.goal in (Action.CANCEL, Action.PAUSE, Action.EXPIRE):
        assert late.wanted is None or decide(late) == Action.ABANDON


def after(facts: Facts, action: Action) -> Facts:
    """The facts when it has been carried out, where nothing fails and runs do as they are told."""
    match action:
        case Action.CLAIM:
            return replace(
                facts,
                epoch=facts.epoch + 1, holder=Holder.ME, begun=0, stopping_s=None, hurried=False,
            )  # fmt: skip
        case Action.BEGIN:
            run = Run(facts.epoch, JobState.RUNNING)
            return replace(facts, run=run, begun=facts.epoch, paused=None)
        case Action.STOP:
            return replace(facts, stopping_s=HURRY_S)
        case Action.HURRY:
            return replace(facts, hurried=True, stopping_s=ABANDON_S)
        case Action.ABANDON:
            assert facts.run is not None
            return replace(facts, dropped=facts.run.epoch, begun=0, stopping_s=None)
        case Action.DROP:
            return replace(facts, begun=0, stopping_s=None, hurried=False)
        case Action.PAUSE:
            return replace(facts, paused=facts.intent, begun=0, stopping_s=None)
        case Action.CANCEL:
            return replace(facts, end=JobState.CANCELLED, begun=0)
        case Action.EXPIRE:
            return replace(facts, end=JobState.EXPIRED, begun=0)
        case Action.FAIL:
            return replace(facts, end=JobState.FAILED, begun=0)
    return facts


def is_at_rest(facts: Facts) -> bool:
    if facts.wanted is None:
        return True
    if facts.holder == Holder.ALIVE:
        return True  # another's
    if facts.goal == Action.BEGIN and not facts.is_paused:
        run = facts.run
        return run is not None and run.epoch == facts.epoch and run.state != JobState.STOPPING
    return facts.is_paused


@given(FACTS)
def test_where_nothing_fails_every_job_comes_to_rest(facts: Facts) -> None:
    assume((facts.epoch == 0) == (facts.holder == Holder.NOBODY))  # else nothing can be known so
    assume(max(facts.begun, facts.dropped) <= facts.epoch)
    facts = replace(facts, ready=True, may_claim=True)
    for _ in range(20):
        action = decide(facts)
        if action == Action.CLEAN:
            return
        if action == Action.LEAVE:
            if is_at_rest(facts):
                return
            facts = replace(facts, stopping_s=ABANDON_S if facts.stopping_s is not None else None)
        facts = after(facts, action)
    pytest.fail(f"still busy: {facts}")
