"""Files that users write mean what they look like, or are refused in one line with the fix."""

from __future__ import annotations

import io
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.documents import read_mapping
from cluster.errors import UserError
from cluster.scenario.fleet import load_fleet
from cluster.simulation.compare import scheduler_named
from jobs.spec import JobSpec, load_spec, parse_spec
from un0.documents import MAX_BYTES
from un0.errors import InputError
from un0.suggest import did_you_mean
from un0.train.recipe import load_recipe


def read(tmp_path: Path, content: str | bytes, name: str = "job.yaml") -> dict[str, Any]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_spec(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0100", 100), ("010", 10), ("1_000", 1000), ("+5", 5), ("1e6", 1e6), ("1e-3", 1e-3),
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("true", True), ("1:30", "1:30"),
        ("2:30:00", "2:30:00"), ("0x10", "0x10"), ("0o10", "0o10"), ("0b1", "0b1"),
        ("2026-01-01", "2026-01-01"), ("2026-12-01T00:00Z", "2026-12-01T00:00Z"),
        ("2026-12-01T00:00:00Z", "2026-12-01T00:00:00Z"), ("~", None), ("", None), ("=", "="),
    ],
)  # fmt: skip
def test_a_plain_word_of_yaml_means_what_it_looks_like(
    tmp_path: Path, text: str, value: object
) -> None:
    found = read(tmp_path, f"x: {text}\n")["x"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("content", "spec"),
    [
        ("count: 0100", JobSpec(count=100)),
        ("count: 10\nseed: 010", JobSpec(count=10, seed=10)),
        ("count: 1e6", JobSpec(count=10**6)),
        ("count: 1,000,000", JobSpec(count=10**6)),
        ("count: 250k\nshard_images: 1e3", JobSpec(count=250_000, shard_images=1000)),
        ("count: 10\nclasses: Sneaker, Bag", JobSpec(count=10, classes=["Sneaker", "Bag"])),
        ("count: 10\nclasses: [no, 3]", JobSpec(count=10, classes=["no", 3])),
        ("count: 10\nowner: no", JobSpec(count=10, owner="no")),
        ("count: 10\nlabels: {day: 2026-01-01}", JobSpec(count=10, labels={"day": "2026-01-01"})),
        ("count: 10\ndeadline: 2 hours", JobSpec(count=10, deadline=7200)),
    ],
)
def test_a_spec_file_says_what_flags_say(tmp_path: Path, content: str, spec: JobSpec) -> None:
    assert parse_spec(read(tmp_path, content)) == spec


@pytest.mark.parametrize(
    ("content", "fix"),
    [
        ("count: 10\ndeadline: 1:30", "write 1h30m or 1m30s"),
        ("count: 0x10", "decimal"),
        ("count: 10.0", "write 10 or 10000"),
        ("count: 10\nenergy_budget: 5 mj", "5 MJ or 0.005 J"),
        ("count: 10\njob_id: 2026", "job_id: 2026: is read as a number, and must be text"),
        ("count: 10\nlabels: {final: true}", "labels.final: True: is read as true or false"),
        ("count: 10\nlabels: {'': x}", "no name"),
        ("count: 10\nlabels:", "labels: has no value"),
        ('count: 10\nowner: "a\\nb"', "line break"),
        ("count: 10\nclasses: {Bag: '1'}", "a bare number"),
        ("count: 10\nclasses: {true: 1}", "quotes"),
        ("count: 10\nclasses: 3", "write a list"),
        ("energy-budget: 1\ncount: 10", "did you mean 'energy_budget'?"),
        ("count: 10\nstore: s3://x/y", "--store"),
        ("count: 10\nprecision: FP16", "did you mean 'fp16'?"),
        ("count: 10\nencoding: jpg", "did you mean 'jpeg'"),
    ],
)
def test_a_spec_that_could_be_misread_is_refused(tmp_path: Path, content: str, fix: str) -> None:
    with pytest.raises(UserError) as refusal:
        parse_spec(read(tmp_path, content))
    assert fix in str(refusal.value)


BOMB = "a0: &a0 [x]\n" + "".join(f"a{i + 1}: &a{i + 1} [{f'*a{i},' * 9}]\n" for i in range(9))


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("job.yaml", "count: 10\ncount: 20\n", "the key 'count' twice: line 2"),
        ("job.yaml", "count: 10\nlabels: {a: 1, a: 2}\n", "the key 'a' twice: line 2"),
        ("job.json", '{"count": 10, "count": 20}', "the key 'count' twice"),
        ("job.json", '{"count": 1, "labels": {"a": "1", "a": "2"}}', "the key 'a' twice"),
        ("job.json", '{"count": 10, // x\n}', "not valid JSON: line 1, column 15"),
        ("job.yaml", "count: 10\n---\ncount: 20\n", "another document"),
        ("job.yaml", "%YAML 1.1\n---\ncount: 0100\n", "read as YAML 1.2"),
        ("job.yaml", "count: 10\nclasses:\n\tcat: 1\n", "line 3, column 1"),
        ("job.yaml", "count: !!python/object:os.system x\n", "could not determine a constructor"),
        ("job.yaml", BOMB, "write fewer aliases"),
        ("job.yaml", "a: &a [*a]\n", "nested too deep"),
        ("job.yaml", "a: " + "[" * 5000, "nested too deep"),
        ("job.json", '{"a": ' + "[" * 100_000, "nested too deep"),
        ("job.yaml", "", "holds nothing, not a mapping"),
        ("job.yaml", b"owner: \xe9\n", "save it as UTF-8"),
        ("job.yaml", b"\xff\xfec\x00o", "truncated data"),
        ("job.yaml", b"#" * (MAX_BYTES + 1), "larger than 4 MiB"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_refused_in_one_line(tmp_path: Path, name: str, content: str | bytes, fault: str) -> None:
    with pytest.raises(UserError) as refusal:
        read(tmp_path, content, name)
    assert fault in str(refusal.value)
    assert str(tmp_path / name) in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


def test_files_are_unicode_whatever_the_locale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("locale.getencoding", lambda: "ascii")
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert read(tmp_path, "owner: é\r\n".encode(encoding)) == {"owner": "é"}
        assert read(tmp_path, '{"owner": "é"}'.encode(encoding), "job.JSON") == {"owner": "é"}


@pytest.mark.parametrize("content", ["count: 3\n", '{\n\t"count": 3\n}', "{count: 3}"])
def test_a_spec_may_come_from_standard_input(monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    assert load_spec(Path("-")) == {"count": 3}


def test_a_fault_on_standard_input_says_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"a": 1, "a": 2}')))
    with pytest.raises(UserError, match="from standard input has the key 'a' twice"):
        load_spec(Path("-"))


@given(st.binary(max_size=60) | st.text("ab:-[]{}&*!|>%\"' \n\t0123456789._~?,#", max_size=40))
def test_any_file_is_a_mapping_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes | str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        found: object = read_mapping(path, "file", "a: 1")
    except UserError as error:
        found = {"error": str(error)}
    assert isinstance(found, dict)
    assert "\n" not in str(found.get("error"))


WORDS = st.text("aé😀: -#'\"\n,[]{}01._", max_size=8)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | WORDS,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(WORDS, part, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(WORDS, PLAIN, max_size=4))
def test_json_reads_the_same_as_json_and_as_yaml(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]
) -> None:
    root = tmp_path_factory.getbasetemp()
    for name in ("same.json", "same.yaml"):
        (root / name).write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
        assert read_mapping(root / name, "file", "a: 1") == data


def test_every_file_is_read_by_the_same_rules(tmp_path: Path) -> None:
    twice = tmp_path / "twice.yaml"
    twice.write_text("name: a\nname: b\n")
    with pytest.raises(UserError, match="the key 'name' twice"):
        load_fleet(twice)
    with pytest.raises(InputError, match="the key 'name' twice"):
        load_recipe(twice)
    twice.write_text("name: a\nmodel: {n: 64}\noptim: {steps: 1k, lr: 1e-3}\n")
    assert (load_recipe(twice).optim.steps, load_recipe(twice).optim.lr) == (1000, 1e-3)


def test_an_absolute_deadline_is_seconds_once_submitted_and_never_past() -> None:
    spec = JobSpec(count=1, deadline="2026-12-01T02:00+02:00")
    resolved = spec.due_from(datetime(2026, 11, 30, 23, tzinfo=UTC))
    assert resolved.model_dump(mode="json")["deadline"] == 3600.0
    with pytest.raises(UserError, match="is past"):
        spec.due_from(datetime(2026, 12, 1, tzinfo=UTC))


def test_near_names_are_offered() -> None:
    assert did_you_mean("snaeker", ["Sneaker", "Bag"]) == "did you mean 'Sneaker'?"
    assert did_you_mean("fp16", ["fp32", "fp16", "bf16"]) == "did you mean 'fp16'?"
    assert did_you_mean("xyz", ["Bag"], then="choose Bag") == "choose Bag"
    with pytest.raises(UserError, match="policy 'merrit' is not known; did you mean 'merit'"):
        scheduler_named("merrit")
    with pytest.raises(UserError, match=r"did you mean 'reference'\?"):
        load_fleet("refrence")
    with pytest.raises(InputError, match=r"did you mean 'fashion32_n512'\?"):
        load_recipe("fashion32-n512")
