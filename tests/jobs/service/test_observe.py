"""What state a job is shown in, for every combination of what can be known of it."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from cluster.states import TERMINAL, JobState
from cluster.storage.intents import Intent
from cluster.storage.servers import RunStatus
from jobs.service.observe import Facts, observe

NOW = datetime(2026, 1, 1, tzinfo=UTC)

intents = st.builds(
    Intent,
    job_id=st.just("job"),
    number=st.integers(1, 3),
    wanted=st.sampled_from(["run", "pause", "cancel"]),
    by=st.just("ann"),
    reason=st.sampled_from(["", "lunch"]),
    at=st.just(NOW),
    token=st.just("t"),
)
run_states = st.sampled_from(
    [
        JobState.QUEUED,
        JobState.STARTING,
        JobState.RUNNING,
        JobState.PAUSING,
        JobState.PAUSED,
        JobState.CANCELLING,
        *TERMINAL,
    ]
)
runs = st.builds(
    RunStatus,
    job_id=st.just("job"),
    epoch=st.just(1),
    server_id=st.just("s1"),
    intent=st.integers(0, 3),
    state=run_states,
    reason_code=st.sampled_from(["", "energy_budget", "credentials", "of a newer version"]),
    reason=st.sampled_from(["", "why"]),
    at=st.just(NOW),
)
facts = st.builds(
    Facts,
    store_uri=st.just("file:///x"),
    intent=st.none() | intents,
    ended=st.none() | st.sampled_from(TERMINAL),
    run=st.none() | runs,
    held=st.booleans(),
    servers=st.integers(0, 2),
)


@given(facts)
def test_what_is_wanted_and_what_has_ended_decide(known: Facts) -> None:
    shown = observe(known)
    if known.ended is not None:
        assert shown.state == known.ended
        assert (shown.reason is None) == (known.ended == JobState.COMPLETED) or (
            known.ended == JobState.CANCELLED and known.intent is None
        )
    elif known.intent is None:
        assert shown.state == JobState.INCOMPLETE
    elif known.intent.wanted == "cancel":
        assert shown.state == JobState.CANCELLING
    elif known.intent.wanted == "pause":
        assert shown.state in (JobState.PAUSING, JobState.PAUSED)
    else:
        assert not shown.state.is_terminal
        assert shown.state not in (JobState.CANCELLING, JobState.INCOMPLETE)


@given(facts)
def test_whatever_waits_says_why(known: Facts) -> None:
    shown = observe(known)
    if shown.state in (JobState.QUEUED, JobState.PAUSED, JobState.CANCELLING, JobState.FAILED):
        assert shown.reason is not None
        assert shown.reason.message
    if shown.state == JobState.QUEUED and not known.servers:
        assert shown.reason is not None
        assert shown.reason.code == "waiting_for_server"
        assert "un0 serve --store file:///x" in shown.reason.message


@given(facts)
def test_only_a_live_run_is_at_work(known: Facts) -> None:
    shown = observe(known)
    if shown.live or shown.state in (JobState.STARTING, JobState.RUNNING, JobState.PAUSING):
        assert known.held
        assert known.run is not None
