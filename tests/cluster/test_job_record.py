"""``spec.json``: read back as what was written, by whichever version that was."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cluster.actors.options import ModelWork
from cluster.errors import UserError
from cluster.storage.commit import parse_record
from cluster.types import JobRecord, Workload
from jobs.follow import request_of

# As version 0.1 writes it. Never change this: stores are full of it.
TODAY = """{
  "schema_version": 1,
  "workload": {
    "job_id": "nightly", "model": "un0-fashion", "model_rev": "0a1b2c", "count": 1000, "seed": 7,
    "shard_images": 64, "class_ids": [0, 3], "class_weights": null, "labels": [], "width": 28,
    "height": 28, "encoding": "png", "precision": "fp32"
  },
  "spec": {
    "version": 1, "count": 1000, "seed": 7, "classes": {"0": 1.0, "3": 1.0}, "precision": "fp32",
    "encoding": "png", "deadline": 9000000000.0, "priority": -7, "objective": "cost",
    "energy_budget": 2000.0, "job_id": "nightly", "labels": {"team": "vision"}
  },
  "owner": "ada",
  "submitted_at": "2026-11-01T12:00:00Z"
}"""


def read(**changes: Any) -> JobRecord:
    """The record, with these fields of its spec changed; None takes one out."""
    document = json.loads(TODAY)
    spec = document["spec"] | changes
    document["spec"] = {name: value for name, value in spec.items() if value is not None}
    return parse_record(JobRecord, "jobs/nightly/spec.json", json.dumps(document).encode())


def test_a_record_of_today_is_read_typed_and_written_alike() -> None:
    record = read()
    spec = record.spec
    assert (spec.deadline, spec.priority, spec.objective) == (9e9, -7, "cost")
    assert (spec.energy_budget, spec.labels) == (2000.0, {"team": "vision"})
    assert json.loads(record.model_dump_json()) == json.loads(TODAY)


def test_a_choice_of_compression_is_kept_and_none_is_not_written() -> None:
    workload = read().workload
    assert "compression" not in json.loads(workload.model_dump_json())
    raw = workload.model_copy(update={"encoding": "raw"})
    assert (workload.page_compression, raw.page_compression) == ("none", "zstd")
    chosen = raw.model_copy(update={"compression": "lz4"})
    assert Workload.model_validate_json(chosen.model_dump_json()).page_compression == "lz4"


def test_a_spec_of_another_version_keeps_what_this_one_does_not_know() -> None:
    newer = read(tenant={"name": "x", "share": 0.5}, version=2)
    assert json.loads(newer.model_dump_json())["spec"]["tenant"] == {"name": "x", "share": 0.5}
    older = read(priority=None, objective=None, energy_budget=None, deadline=None, labels=None)
    assert (older.spec.priority, older.spec.objective, older.spec.deadline) == (0, "energy", None)
    assert "priority" not in json.loads(older.model_dump_json())["spec"], "nobody said so"


def test_the_scheduler_gets_the_request_of_the_record() -> None:
    run = request_of(read(), ModelWork(1.0, 1, 1))
    request = run.request
    assert (request.job_id, request.owner, request.images) == ("nightly", "ada", 1000)
    assert (request.priority, request.objective, request.energy_budget_j) == (-7, "cost", 2000.0)
    assert request.deadline_s is not None
    assert 0 < request.deadline_s < 9e9, "of it, what is left now"


def test_an_objective_of_a_newer_version_is_refused_when_it_is_to_run() -> None:
    record = read(objective="water")
    assert record.spec.objective == "water", "but can be looked at"
    with pytest.raises(UserError, match=r"objective 'water'.*newer"):
        request_of(record, ModelWork(1.0, 1, 1))
