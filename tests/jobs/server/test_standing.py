"""Why a run has failed, and whether it is worth another try however often it was tried."""

from __future__ import annotations

import pytest

from cluster.energy import ZERO_ENERGY
from cluster.progress import ReplicaView, Snapshot
from cluster.states import JobState
from cluster.types import SetAside
from jobs.server.standing import may_pass, why_failed

UP = ReplicaView("r", hardware="cpu")
ASIDE = (SetAside(shard=1, attempts=3, reason="no"),)


def failed(reason: str, *replicas: ReplicaView, aside: tuple[SetAside, ...] = ()) -> Snapshot:
    return Snapshot(
        "job", JobState.FAILED, 10, 0, 0, 0, 0.0, 0.0, ZERO_ENERGY, ZERO_ENERGY, replicas,
        reason=reason, set_aside=aside,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("snapshot", "code", "passes"),
    [
        (
            failed("no replica is left; the last loss: none has joined"),
            "waiting_for_hardware",
            True,
        ),
        (failed("PUT s3://b/k: the credentials have expired: renew them", UP), "credentials", True),
        (failed("the server does not know the access key: check it", UP), "credentials", True),
        (failed("the store stayed away for 60 s", UP), "store_unavailable", True),
        (failed("the store is full: free some space", UP), "store_unavailable", True),
        (failed("7 shards were set aside", UP, aside=ASIDE), "shards_failed", False),
        (failed("ValueError: of a model", UP), "internal", False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_why_a_run_failed(snapshot: Snapshot, code: str, passes: bool) -> None:
    reason = why_failed(snapshot)
    assert reason == (code, snapshot.reason)
    assert may_pass(reason) is passes
