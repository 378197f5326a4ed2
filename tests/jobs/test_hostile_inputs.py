"""What a user can get wrong, and what is then said: the thing, the value, the fix; exit 2.

`python -m tests.jobs.test_hostile_inputs` prints the table with the actual words.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from jobs.cli.main import main
from un0 import DEFAULT_MODEL, load_model, save_model

GENERATE = ("generate", "--count", "10")


class Hostile:
    """A pickle that would run a command if it were trusted."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("this must never run",))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of unusable things."""
    root = tmp_path_factory.mktemp("hostile")
    whole = root / "whole.safetensors"
    model = load_model(DEFAULT_MODEL)
    save_model(model, whole)
    (root / "truncated.safetensors").write_bytes(whole.read_bytes()[:5000])
    (root / "empty.pt").touch()
    (root / "text.pt").write_text("not a checkpoint")
    (root / "hostile.pt").write_bytes(pickle.dumps({"model": Hostile(), "config": {}}))
    torch.save({"model": {"K": torch.zeros(3, 3)}, "config": {}}, root / "missing-tensors.pt")
    torch.save([1, 2, 3], root / "list.pt")
    nan = torch.load(Path(__file__).parents[1] / "un0/parity/fixtures/cifar10_n64.pt")
    nan["model"]["dynamics._orig_mod.K"][0, 1] = float("nan")
    torch.save(nan, root / "nan.pt")
    nan["model"]["dynamics._orig_mod.K"] = torch.zeros(5, 7)
    torch.save(nan, root / "wrong-shape.pt")
    (root / "a-file").write_text("in the way")
    (root / "bad.yaml").write_text("count: 10\ncolour: red\nencoding: gif\n")
    (root / "list.yaml").write_text("- count\n")
    return root


# (what, arguments with {files} for the directory above, what the message must contain)
TABLE: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
    ("count 0", ("generate", "--count", "0"), ("count: 0", "greater than or equal to 1")),
    ("count negative", ("generate", "--count", "-3"), ("count: -3",)),
    ("count absurd", ("generate", "--count", str(2**60)), (f"count: {2**60}",)),
    ("no count", ("generate",), ("--count",)),
    ("count in words", ("generate", "--count", "ten"), ("count: 'ten'", "1e6")),
    ("unknown option", (*GENERATE, "--colour", "red"), ("--colour",)),
    ("seed negative", (*GENERATE, "--seed", "-1"), ("seed: -1",)),
    ("seed too large", (*GENERATE, "--seed", str(2**64)), ("seed: ",)),
    ("class list empty", (*GENERATE, "--classes", ","), ("classes: ','", "at least one class")),
    ("class id out of range", (*GENERATE, "--classes", "3,10"), ("10", "0 to 9")),
    ("class name unknown", (*GENERATE, "--classes", "Hat"), ("'Hat'", "Sneaker")),
    ("deadline negative", (*GENERATE, "--deadline", "-5m"), ("deadline: '-5m'",)),
    ("deadline unit", (*GENERATE, "--deadline", "3 months"), ("'3 months'", "2h30m")),
    ("deadline as a clock", (*GENERATE, "--deadline", "1:30"), ("'1:30'", "1h30m or 1m30s")),
    ("deadline without zone", (*GENERATE, "--deadline", "2030-01-01T00:00"), ("zone", "00:00Z")),
    ("deadline past", (*GENERATE, "--deadline", "2020-01-01T00:00Z"), ("2020-01-01", "past")),
    ("class range", (*GENERATE, "--classes", "0-9"), ("'0-9'", "0,1,2")),
    ("class misspelt", (*GENERATE, "--classes", "Snaeker"), ("did you mean 'Sneaker'?",)),
    ("classes by semicolon", (*GENERATE, "--classes", "Sneaker;Bag"), ("by commas",)),
    ("class weights", (*GENERATE, "--classes", "Sneaker:2"), ("spec file",)),
    ("class all", (*GENERATE, "--classes", "all"), ("leave them out",)),
    ("class full-width", (*GENERATE, "--classes", "\uff13"), ("is unknown",)),
    ("label without name", (*GENERATE, "--label", "=y"), ("no name", "team=vision")),
    ("label twice", (*GENERATE, "--label", "a=1", "--label", "a=2"), ("'a'", "twice")),
    ("simulate policy", ("simulate", "reference", "day", "--policy", "merrit"), ("'merit'",)),
    ("priority too high", (*GENERATE, "--priority", "101"), ("priority: 101", "100")),
    ("priority in words", (*GENERATE, "--priority", "high"), ("priority: 'high'", "whole number")),
    ("objective unknown", (*GENERATE, "--objective", "joy"), ("objective: 'joy'", "throughput")),
    ("budget of nothing", (*GENERATE, "--energy-budget", "0"), ("energy_budget: '0'",)),
    ("budget unit", (*GENERATE, "--energy-budget", "5 kW"), ("'5 kW'", "1.5 kWh")),
    (
        "budget in millijoules",
        (*GENERATE, "--energy-budget", "5 mJ"),
        ("'5 mJ'", "5 MJ or 0.005"),
    ),
    ("budget endless", (*GENERATE, "--energy-budget", "inf"), ("energy_budget: 'inf'",)),
    ("explain unknown job", ("explain", "nope", "--store", "{files}/s"), ("'nope'", "--store")),
    ("explain shard negative", ("explain", "nope", "--shard", "-1"), ("--shard",)),
    ("calibrate model unknown", ("calibrate", "fashion32/n521"), ("fashion32/n512",)),
    ("calibrate precision", ("calibrate", "--precision", "fp4"), ("'fp4'", "bf16")),
    ("calibrate no time", ("calibrate", "--seconds", "1"), ("--seconds", "2")),
    ("calibrate store", ("calibrate", "--store", "gs://bucket"), ("gs://bucket", "s3://")),
    ("fleet store", ("fleet", "--store", "gs://bucket"), ("gs://bucket", "s3://")),
    ("precision unknown", (*GENERATE, "--precision", "fp4"), ("precision: 'fp4'", "bf16")),
    ("encoding unknown", (*GENERATE, "--encoding", "bmp"), ("encoding: 'bmp'", "png")),
    ("compression of png", (*GENERATE, "--compression", "lz4"), ("compression: 'lz4'", "raw")),
    ("shard size 0", (*GENERATE, "--shard-images", "0"), ("shard_images: '0'",)),
    ("class id garbled", (*GENERATE, "--classes=--5"), ("'--5'",)),
    ("replicas 0", (*GENERATE, "--replicas", "0"), ("--replicas",)),
    ("job id a path", (*GENERATE, "--job-id", "../up"), ("job_id: '../up'", "letters")),
    ("label without =", (*GENERATE, "--label", "vision"), ("'vision'", "team=vision")),
    ("spec absent", ("generate", "--spec", "{files}/none.yaml"), ("none.yaml", "check the path")),
    ("spec a list", ("generate", "--spec", "{files}/list.yaml"), ("list", "mapping")),
    ("spec two faults", ("generate", "--spec", "{files}/bad.yaml"), ("colour", "'gif'")),
    ("model unknown", (*GENERATE[:1], "fashion32/n521", *GENERATE[1:]), ("fashion32/n512",)),
    ("model absent", (*GENERATE[:1], "{files}/no.pt", *GENERATE[1:]), ("no.pt",)),
    ("model a directory", (*GENERATE[:1], "{files}", *GENERATE[1:]), ("directory",)),
    ("model empty", (*GENERATE[:1], "{files}/empty.pt", *GENERATE[1:]), ("empty.pt",)),
    ("model text", (*GENERATE[:1], "{files}/text.pt", *GENERATE[1:]), ("text.pt",)),
    ("model a list", (*GENERATE[:1], "{files}/list.pt", *GENERATE[1:]), ("list.pt",)),
    ("model hostile", (*GENERATE[:1], "{files}/hostile.pt", *GENERATE[1:]), ("hostile.pt",)),
    (
        "model truncated",
        (*GENERATE[:1], "{files}/truncated.safetensors", *GENERATE[1:]),
        ("truncated.safetensors",),
    ),
    ("model NaN", (*GENERATE[:1], "{files}/nan.pt", *GENERATE[1:]), ("nan.pt", "NaN", "K")),
    (
        "model without tensors",
        (*GENERATE[:1], "{files}/missing-tensors.pt", *GENERATE[1:]),
        ("missing-tensors.pt",),
    ),
    (
        "model wrong shape",
        (*GENERATE[:1], "{files}/wrong-shape.pt", *GENERATE[1:]),
        ("K", "(5, 7)"),
    ),
    ("store scheme", (*GENERATE, "--store", "gs://bucket"), ("gs://bucket", "s3://")),
    ("store no bucket", (*GENERATE, "--store", "s3://"), ("s3://", "bucket")),
    ("store on a file", (*GENERATE, "--store", "{files}/a-file"), ("a-file",)),
    (
        "store no server",
        (*GENERATE, "--store", "s3://bucket/p", "--endpoint-url", "http://127.0.0.1:9"),
        ("127.0.0.1:9", "check --endpoint-url"),
    ),
    (
        "store credentials in URI",
        (*GENERATE, "--store", "s3://AKIAKEY:topsecret@bucket/p"),
        ("AWS_ACCESS_KEY_ID",),
    ),
    ("resume no job id", ("resume", "../x", "--store", "{files}/s"), ("no job id",)),
    ("resume unknown job", ("resume", "nope", "--store", "{files}/s"), ("'nope'", "--store")),
    ("verify unknown job", ("verify", "nope", "--store", "{files}/s"), ("'nope'",)),
    ("grid unknown job", ("grid", "nope", "--out", "x.png", "--store", "{files}/s"), ("'nope'",)),
    ("query syntax", ("query", "selec 1", "--store", "{files}/s"), ("query", "selec")),
    ("query column", ("query", "select no from jobs", "--store", "{files}/s"), ("no",)),
    ("export dtype", ("export", DEFAULT_MODEL, "{files}/x", "--dtype", "fp8"), ("'fp8'", "fp16")),
    ("cluster unreachable", (*GENERATE, "--address", "127.0.0.1:9"), ("127.0.0.1:9", "--address")),
]


def said(arguments: tuple[str, ...], files: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command prints as it refuses, with exit code 2 and without a traceback."""
    argv = ["un0", *(argument.format(files=files) for argument in arguments)]
    if arguments[0] == "generate" and "--store" not in arguments:
        argv += ["--store", str(files / "s")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", argv)
        patch.setenv("AWS_ACCESS_KEY_ID", "AK")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "verysecret")
        with pytest.raises(SystemExit) as end:
            main()
    out, err = capsys.readouterr()
    assert end.value.code == 2, out + err
    assert "Traceback" not in out + err
    assert "must never run" not in out + err
    assert "secret" not in out + err
    return err


@pytest.mark.parametrize(
    ("arguments", "fragments"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_refused_with_a_clear_word(
    arguments: tuple[str, ...],
    fragments: tuple[str, ...],
    files: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    message = " ".join(said(arguments, files, capsys).split())
    for fragment in fragments:
        assert fragment in message


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("may not mount a file system here")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.ray
@pytest.mark.slow
def test_a_full_disk_fails_the_job_and_keeps_what_is_committed(
    tiny_disk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["un0", "generate", "--count", "6000", "--shard-images", "256",
                      "--store", str(tiny_disk), "--job-id", "full"]
    )  # fmt: skip
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    assert end.value.code == 1
    assert "full" in out
    assert "un0 resume full" in err
    commits = list((tiny_disk / "jobs/full/commits").glob("shard-*.json"))
    assert commits
    assert all(commit.read_text().endswith("}") for commit in commits)
