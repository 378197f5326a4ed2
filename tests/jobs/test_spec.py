"""A job spec is accepted whole or refused with the field, the value and the fix."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cluster.clock import utc_now
from cluster.errors import UserError
from cluster.storage.open import open_store
from jobs.cli.job_options import read_job
from jobs.service.foreground import generate
from jobs.service.prepare import prepare
from jobs.spec import InputsSpec, JobSpec, load_spec, parse_spec
from un0.quantities import parse_count, parse_deadline, parse_duration_s, parse_energy_j

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "count: is missing"),
    ({"count": 0}, "count: 0"),
    ({"count": -5}, "count: -5"),
    ({"count": 1.5}, "count: 1.5"),
    ({"count": "ten"}, "count: 'ten': not a whole number"),
    ({"count": True}, "count: True"),
    ({"count": 2**50}, f"count: {2**50}"),
    ({"count": 1, "seed": -1}, "seed: -1"),
    ({"count": 1, "seed": 2**64}, "seed: "),
    ({"count": 1, "classes": []}, "classes: []: is empty"),
    ({"count": 1, "classes": {"Bag": 0}}, "weights must be > 0"),
    ({"count": 1, "classes": {"Bag": float("nan")}}, "weights must be > 0"),
    ({"count": 1, "precision": "fp64"}, "precision: 'fp64'"),
    ({"count": 1, "encoding": "gif"}, "encoding: 'gif'"),
    ({"count": 1, "compression": "gzip", "encoding": "raw"}, "compression: 'gzip'"),
    ({"count": 1, "compression": "none"}, "compression: 'none': png images are compressed"),
    ({"count": 1, "shard_images": 0}, "shard_images: 0"),
    ({"count": 1, "deadline": -1}, "deadline: -1"),
    ({"count": 1, "deadline": "5 parsecs"}, "deadline: '5 parsecs': not a duration"),
    ({"count": 1, "deadline": "-2h"}, "deadline: '-2h'"),
    ({"count": 1, "deadline": "inf"}, "deadline: 'inf'"),
    ({"count": 1, "priority": 101}, "priority: 101"),
    ({"count": 1, "priority": -101}, "priority: -101"),
    ({"count": 1, "priority": 1.5}, "priority: 1.5"),
    ({"count": 1, "priority": True}, "priority: True"),
    ({"count": 1, "objective": "speed"}, "objective: 'speed'"),
    ({"count": 1, "energy_budget": 0}, "energy_budget: 0"),
    ({"count": 1, "energy_budget": "0 kJ"}, "energy_budget: '0 kJ'"),
    ({"count": 1, "energy_budget": "-5 J"}, "energy_budget: '-5 J': not an energy"),
    ({"count": 1, "energy_budget": "5 mJ"}, "energy_budget: '5 mJ': not an energy"),
    ({"count": 1, "energy_budget": "3 horses"}, "energy_budget: '3 horses': not an energy"),
    ({"count": 1, "energy_budget": "kWh"}, "energy_budget: 'kWh': not an energy"),
    ({"count": 1, "energy_budget": "1e400 J"}, "energy_budget: '1e400 J'"),
    ({"count": 1, "energy_budget": float("nan")}, "energy_budget: nan"),
    ({"count": 1, "energy_budget": [5]}, "energy_budget: [5]"),
    ({"count": 1, "job_id": "../escape"}, "job_id: '../escape'"),
    ({"count": 1, "job_id": ""}, "job_id: ''"),
    ({"count": 1, "model": ""}, "model: ''"),
    ({"count": 1, "owner": ""}, "owner: ''"),
    ({"count": 1, "labels": {"team": 3}}, "labels.team: 3"),
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
    ("value", "joules"),
    [
        (500, 500), ("500", 500), ("500 J", 500), ("2kJ", 2000), ("2 kj", 2000), ("3 MJ", 3e6),
        ("20 Wh", 72_000), ("1.5 kWh", 5.4e6), ("1e3 J", 1000), (" 2 KWH ", 7.2e6),
    ],
)  # fmt: skip
def test_energy_budgets_are_read_in_joules(value: object, joules: float) -> None:
    assert parse_spec({"count": 1, "energy_budget": value}).energy_budget == joules


def test_what_the_scheduler_heeds_is_in_the_record_and_left_out_is_the_default() -> None:
    spec = parse_spec({"count": 1, "priority": -7, "objective": "cost", "energy_budget": "2 kJ"})
    record = spec.model_dump(mode="json", exclude_none=True)
    assert (record["priority"], record["objective"], record["energy_budget"]) == (-7, "cost", 2e3)
    plain = JobSpec(count=1).model_dump(mode="json", exclude_none=True)
    assert (plain["priority"], plain["objective"]) == (0, "energy")
    assert "energy_budget" not in plain


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("15m", 900), ("2h30m", 9000), ("1d", 86400), ("0.5h", 1800)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds
    assert parse_spec({"count": 1, "deadline": text}).deadline == seconds


def test_a_deadline_in_the_store_is_seconds_from_submission(tmp_path: Path) -> None:
    due = utc_now() + timedelta(hours=2)
    record, _ = prepare(JobSpec(count=1, deadline=due.isoformat()), open_store(str(tmp_path)))
    left_s = record.spec.deadline
    assert left_s is not None
    assert record.submitted_at + timedelta(seconds=left_s) == pytest.approx(
        due, abs=timedelta(milliseconds=1)
    )
    assert JobSpec.model_validate(record.spec.model_dump()).deadline == left_s


def test_rows_take_the_place_of_a_count() -> None:
    spec = parse_spec({"inputs": "rows.csv"})
    assert spec.inputs == InputsSpec(source="rows.csv")
    assert spec.count is None
    named = parse_spec({"inputs": {"source": "r", "format": "csv", "class": "c", "strict": True}})
    assert named.inputs is not None
    assert (named.inputs.class_, named.inputs.strict) == ("c", True)
    assert named.model_dump(mode="json", exclude_none=True)["inputs"] == {
        "source": "r", "format": "csv", "class": "c", "strict": True,
    }  # fmt: skip
    for data, message in (
        ({"inputs": 3}, "inputs: 3"),
        ({"inputs": ""}, "inputs.source"),
        ({"inputs": {"source": "r", "format": "xlsx"}}, "inputs.format"),
        ({"inputs": {"source": "r", "klass": "x"}}, "inputs.klass: unknown field"),
        ({"inputs": "r", "classes": [1]}, "the rows of inputs say which classes"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            parse_spec(data)


def test_flags_of_rows_are_laid_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("inputs: {source: a.csv, class: kind}\n")
    job = read_job(file, None, inputs="b.csv", strict=True)
    assert job.inputs == InputsSpec(source="b.csv", class_="kind", strict=True)
    assert read_job(None, None, inputs="b.csv", strict=False).inputs == InputsSpec(source="b.csv")
    file.write_text("inputs: a.csv\n")
    job = read_job(file, None, inputs=None, strict=True)
    assert job.inputs == InputsSpec(source="a.csv", strict=True)
    with pytest.raises(UserError, match="--strict is about"):
        read_job(None, None, count="3", strict=True)
    with pytest.raises(UserError, match="--inputs FILE"):
        read_job(None, None)


def test_the_reference_has_every_field_and_its_forms_are_accepted() -> None:
    text = (Path(__file__).parents[2] / "docs/reference/job-spec.md").read_text()
    assert re.findall(r"^\| `(\w+)`", text, re.MULTILINE) == list(JobSpec.model_fields)
    for heading, parse in (
        ("Counts", parse_count),
        ("Durations", parse_duration_s),
        ("Times", parse_deadline),
        ("Energies", parse_energy_j),
    ):
        section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
        forms = re.findall("`([^`]+)`", section.split("\n\n")[0].split(" Case matters")[0])
        assert all(parse(form) for form in forms), heading


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
        ("list.yaml", "- 1\n- 2\n", "holds a list, not a mapping"),
        ("broken.yaml", "count: [1", "not valid YAML"),
        ("broken.json", "{count: 1}", "not valid JSON: line 1, column 2"),
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


def test_a_job_stops_at_a_deadline_only_if_it_has_one() -> None:
    stops = parse_spec({"count": 1, "deadline": "1h", "on_deadline": "stop"})
    assert stops.on_deadline == "stop"
    assert parse_spec({"count": 1}).on_deadline == "continue"
    with pytest.raises(UserError, match=r"on_deadline.*no deadline"):
        parse_spec({"count": 1, "on_deadline": "stop"})
    with pytest.raises(UserError, match="un0 submit"):
        generate(stops, "/nowhere")
