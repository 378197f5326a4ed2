"""A job spec is accepted whole or refused with the field, the value and the mend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.errors import UserError
from jobs.spec import JobSpec, load_spec, parse_duration_s, parse_spec

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "count: is missing"),
    ({"count": 0}, "count: 0"),
    ({"count": -5}, "count: -5"),
    ({"count": 1.5}, "count: 1.5"),
    ({"count": "100"}, "count: '100'"),
    ({"count": True}, "count: True"),
    ({"count": 2**50}, f"count: {2**50}"),
    ({"count": 1, "seed": -1}, "seed: -1"),
    ({"count": 1, "seed": 2**64}, "seed: "),
    ({"count": 1, "classes": []}, "classes: []: is empty"),
    ({"count": 1, "classes": {"Bag": 0}}, "weights must be > 0"),
    ({"count": 1, "classes": {"Bag": float("nan")}}, "weights must be > 0"),
    ({"count": 1, "precision": "fp64"}, "precision: 'fp64'"),
    ({"count": 1, "encoding": "gif"}, "encoding: 'gif'"),
    ({"count": 1, "shard_images": 0}, "shard_images: 0"),
    ({"count": 1, "deadline": -1}, "deadline: -1"),
    ({"count": 1, "deadline": "5 parsecs"}, "deadline: '5 parsecs': not a duration"),
    ({"count": 1, "deadline": "-2h"}, "deadline: '-2h'"),
    ({"count": 1, "deadline": "inf"}, "deadline: 'inf'"),
    ({"count": 1, "job_id": "../escape"}, "job_id: '../escape'"),
    ({"count": 1, "job_id": ""}, "job_id: ''"),
    ({"count": 1, "model": ""}, "model: ''"),
    ({"count": 1, "owner": ""}, "owner: ''"),
    ({"count": 1, "labels": {"team": 3}}, "labels: 3"),
    ({"count": 1, "colour": "red"}, "colour: unknown field; known fields are"),
    ({"count": 1, "version": 2}, "version: 2"),
]


@pytest.mark.parametrize(("data", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_refused_with_field_and_value(data: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refusal:
        parse_spec(data)
    assert message in str(refusal.value)


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(UserError) as refusal:
        parse_spec({"count": 0, "encoding": "gif", "colour": 1}, "job spec job.yaml")
    lines = str(refusal.value).splitlines()
    assert lines[0] == "job spec job.yaml is not usable:"
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("15m", 900), ("2h30m", 9000), ("1d", 86400), ("0.5h", 1800)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds
    assert parse_spec({"count": 1, "deadline": text}).deadline == seconds


def test_yaml_and_json_files_say_the_same(tmp_path: Path) -> None:
    yaml_file, json_file = tmp_path / "job.yaml", tmp_path / "job.json"
    yaml_file.write_text("count: 10\nclasses: [Bag, 3]\nlabels: {team: vision}\n")
    json_file.write_text('{"count": 10, "classes": ["Bag", 3], "labels": {"team": "vision"}}')
    expected = JobSpec(count=10, classes=["Bag", 3], labels={"team": "vision"})
    assert parse_spec(load_spec(yaml_file)) == parse_spec(load_spec(json_file)) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("absent.yaml", None, "cannot be read"),
        ("list.yaml", "- 1\n- 2\n", "holds list, not a mapping"),
        ("broken.yaml", "count: [1", "not valid YAML"),
        ("broken.json", "{count: 1}", "not valid YAML or JSON"),
        ("binary.yaml", b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_unusable_files(tmp_path: Path, name: str, text: str | bytes | None, message: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message) as refusal:
        load_spec(path)
    assert str(path) in str(refusal.value)
