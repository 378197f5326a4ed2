"""States: what may follow what, however a job's run is asked to go."""

from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cluster.simulation.device import Phase
from cluster.simulation.energy import BUCKETS
from cluster.states import (
    ENERGY_BUCKETS,
    NEXT_JOB_STATES,
    NEXT_SERVICE_STATES,
    TERMINAL,
    EnergyBucket,
    JobEnd,
    JobState,
    ReplicaState,
)
from cluster.storage.layout import JobLayout


class JobLife(RuleBasedStateMachine):
    """A job through any number of runs, by allowed transitions alone."""

    def __init__(self) -> None:
        super().__init__()
        self.state = JobState.INCOMPLETE
        self.completed = False

    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        following = sorted(NEXT_JOB_STATES[self.state])
        if following:
            self.state = data.draw(st.sampled_from(following))
        self.completed |= self.state == JobState.COMPLETED

    @invariant()
    def what_is_complete_stays_so(self) -> None:
        assert not self.completed or self.state == JobState.COMPLETED

    @invariant()
    def it_can_always_still_end(self) -> None:
        reachable, waiting = {self.state}, [self.state]
        while waiting:
            fresh = NEXT_JOB_STATES[waiting.pop()] - reachable
            reachable |= fresh
            waiting += fresh
        assert JobState.COMPLETED in reachable


TestJobLife = JobLife.TestCase


def test_every_state_says_what_may_follow() -> None:
    assert set(NEXT_JOB_STATES) | set(NEXT_SERVICE_STATES) == set(JobState)


def test_only_a_run_ends_a_job() -> None:
    """Each way to end is an end from every state of a run, and from no other."""
    running = {JobState.STARTING, JobState.RUNNING, JobState.STOPPING}
    for state, following in NEXT_JOB_STATES.items():
        ends = following & set(get_args(JobEnd))
        assert ends == (set(get_args(JobEnd)) if state in running else set())


def test_the_service_never_leaves_an_end_and_can_always_reach_each() -> None:
    for state, following in NEXT_SERVICE_STATES.items():
        assert following >= set(TERMINAL) if not state.is_terminal else not following
        assert following <= set(NEXT_SERVICE_STATES)


@given(st.sampled_from(sorted(JobState)))
def test_terminal_states_and_their_markers_are_one_to_one(state: JobState) -> None:
    assert state.is_terminal == (state in TERMINAL)
    assert state.is_terminal == (state in get_args(JobEnd) and state not in ("stopped", "paused"))
    others = [JobLayout("j").marker(other) for other in JobState if other != state]
    assert JobLayout("j").marker(state) not in others


def test_layers_that_repeat_a_word_use_it_as_it_is() -> None:
    assert set(get_args(Phase)) - {"silent"} == set(ReplicaState) - {"lost"}
    assert set(BUCKETS) - {"exploration"} <= set(ENERGY_BUCKETS)
    assert get_args(EnergyBucket) == ENERGY_BUCKETS
