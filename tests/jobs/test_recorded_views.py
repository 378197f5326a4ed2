"""The JSON of ``un0 explain`` and ``un0 fleet``, key by key, against what scripts rely on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from cluster.progress import FleetView
from cluster.storage.commit import read_commits
from cluster.storage.decisions import read_decisions
from cluster.storage.open import open_store
from cluster.storage.summaries import load_job
from jobs.explain import explain_job, explain_shard
from jobs.explanation import JobExplanation, ShardExplanation
from tests.jobs.cli.test_fleet_command import VIEW
from tests.jobs.test_explain import place  # noqa: F401  # a fixture

RECORDED = Path(__file__).parent / "recorded"


def recorded(name: str) -> Any:
    return json.loads((RECORDED / f"{name}.json").read_text())


def without_attempt(facts: Any) -> Any:
    if facts["measured"]:
        facts["measured"]["attempt_id"] = "ATTEMPT"  # a new one every time
    return facts


def test_a_jobs_explanation(place: str) -> None:  # noqa: F811
    store = open_store(place)
    job = explain_job(
        load_job(store, "job"),
        read_decisions(store, "job"),
        list(read_commits(store, "job").values()),
    )
    text = job.model_dump_json()
    assert list(json.loads(text).items()) == list(recorded("explain_job").items())
    assert JobExplanation.model_validate_json(text) == job  # what a client reads back


@pytest.mark.parametrize("shard", [0, 2])
def test_a_shards_explanation(place: str, shard: int) -> None:  # noqa: F811
    store = open_store(place)
    commit = read_commits(store, "job").get(shard)
    facts = explain_shard(load_job(store, "job"), read_decisions(store, "job"), commit, shard)
    text = facts.model_dump_json()
    assert without_attempt(json.loads(text)) == recorded(f"explain_shard{shard}")
    assert ShardExplanation.model_validate_json(text) == facts


def test_the_fleet() -> None:
    views = TypeAdapter(FleetView)
    text = views.dump_json(VIEW)
    assert list(json.loads(text).items()) == list(recorded("fleet").items())
    assert views.validate_json(text) == VIEW
