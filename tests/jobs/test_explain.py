"""``un0 explain``: the explanation of a run, from its store."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cluster.clock import Anchor
from cluster.scheduler.explain import Decision
from cluster.scheduler.plan import Rival
from cluster.storage.decisions import DecisionLog
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.types import Energy, model_key
from jobs.cli.main import main
from tests.support.jobfactory import submit, workload, write_shard

JOB = workload("job", count=24)  # four shards of six
KEY = model_key(JOB.model_rev, JOB.precision)
MEASURED = Energy(energy_mj=6000, quality="measured_counter", method="nvml-counter")
EARLY, LATE = (Rival("L4", 0.4, 9, "held"),), (
    Rival("L4", 0.5, 9, "1 used"),
    Rival("H100", 0.7, 0, "not needed"),
)  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> str:
    """A store with a job that was held, woken, assigned, probed, doubled and set aside."""
    store = open_store(str(tmp_path / "store"))
    submit(store, JOB)
    write_shard(store, JOB, 0, MEASURED)
    write_shard(store, JOB, 1)
    log = DecisionLog(store, "run-1", anchor=Anchor(datetime(2026, 5, 1, tzinfo=UTC), 0))
    log.begin("job")
    assignment: dict[str, Any] = {"job_id": "job", "replica_id": "r-1", "hardware": "L4"}
    log.append(
        [
            Decision("plan", 1, 1, "it can wait", demand=f"{KEY} for energy", rivals=EARLY),
            Decision("plan", 1, 1, "no deadline", demand="other/fp32 for energy",
                     rivals=(Rival("T4", 9.0, 0, "x"),)),
            Decision("hold", 1, 1, "for up to 90 s more, while deadlines allow"),
            Decision("hold", 2, 1, "for up to 80 s more, while deadlines allow"),
            Decision("plan", 3, 2, "a rush is near", demand=f"{KEY} for energy", rivals=LATE),
            Decision("wake", 3, 2, "the plan wants it", replica_id="r-1", hardware="L4"),
            Decision("lease", 4, 2, "cheapest hardware in the plan with room", first=0, stop=3,
                     predicted_s=3.0, predicted_j=18.0, **assignment),
            Decision("probe", 5, 2, "to learn what this hardware takes", job_id="job",
                     replica_id="r-9", hardware="H100", first=3, stop=4, predicted_j=4.2),
            Decision("speculate", 6, 2, "r-1 is late with it", job_id="job", replica_id="r-9",
                     hardware="H100", first=2, stop=3, predicted_j=4.2, predicted_s=1.0),
            Decision("set_aside", 7, 2, "it is cursed", job_id="job", first=2, stop=3),
            Decision("park", 8, 2, "no work for its model", replica_id="r-1", hardware="L4"),
        ]
    )  # fmt: skip
    log.close()
    return str(tmp_path / "store")


def outcome(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["un0", "explain", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
    out, err = capsys.readouterr()
    assert not end.value.code, out + err
    return out


def facts(*arguments: str, capsys: pytest.CaptureFixture[str]) -> Any:
    import json

    return json.loads(outcome(*arguments, "--json", capsys=capsys))


def test_a_job_is_explained_in_facts(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    told_of = facts("job", "--store", place, capsys=capsys)
    assert (told_of["plans"], told_of["runs"], told_of["committed_shards"]) == (2, 1, 2)
    assert told_of["last_plan"]["why"] == "a rush is near"
    assert [(r["hardware"], r["cost"]) for r in told_of["last_plan"]["rivals"]] == [
        ("L4", 0.5),
        ("H100", 0.7),
    ]
    events = {(e["kind"], e["hardware"]): e for e in told_of["events"]}
    assert events["hold", None]["times"] == 2  # for one reason, whatever the seconds
    assert "80 s" in events["hold", None]["why"]
    assert events["park", "L4"]["why"] == "no work for its model"
    assert events["set_aside", None]["shards"] == [[2, 3]]
    of_l4 = next(row for row in told_of["hardware"] if row["hardware"] == "L4")
    assert of_l4["predicted"]["energy_per_image_j"] == pytest.approx(1.0)  # 18 J, 18 images
    # 6 J measured and 3 J estimated of two shards of six: as sure as the less sure
    assert of_l4["measured"]["energy_j"] == pytest.approx(9.0)
    assert of_l4["measured"]["quality"] == "estimated"
    assert of_l4["measured"]["low_j"] < 9.0 < of_l4["measured"]["high_j"]


def test_a_shard_is_explained_in_facts(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = facts("job", "--shard", "0", "--store", place, capsys=capsys)
    (assignment,) = first["leases"]
    assert (assignment["replica_id"], assignment["plan"]) == ("r-1", 2)
    assert [rival["hardware"] for rival in assignment["rivals"]] == ["L4", "H100"]
    assert assignment["predicted"]["energy_j"] == 18.0
    assert first["measured"]["energy_j"] == 6.0
    assert first["measured"]["quality"] == "measured_counter"
    twice = facts("job", "--shard", "2", "--store", place, capsys=capsys)
    assert [assignment["kind"] for assignment in twice["leases"]] == ["lease", "speculate"]
    assert twice["set_aside"][0]["why"] == "it is cursed"
    assert twice["measured"] is None
    probed = facts("job", "--shard", "3", "--store", place, capsys=capsys)
    assert probed["leases"][0]["predicted"]["seconds"] is None  # unknown, not 0


def test_people_get_sentences(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = outcome("job", "--store", place, capsys=capsys)
    for words in (
        "2 plans in 1 run",
        "Held the work 2 times: for up to 80 s more, while deadlines allow.",
        "Woke L4 (r-1) once: the plan wants it.",
        "Probed H100 (r-9) once: to learn what this hardware takes.",
        "Set shards aside (2) once: it is cursed.",
        "none: a guess",
        "500 mJ",
    ):
        assert words in text
    assert "T4" not in text  # of a plan for another model
    text = outcome("job", "--shard", "2", "--store", place, capsys=capsys)
    assert "Leased once more" in text
    assert "r-1 is late with it" in text
    assert "It is not committed." in text
    text = outcome("job", "--shard", "1", "--store", place, capsys=capsys)
    assert "3 J (1 J to 9 J) (estimated by test)" in text  # an estimate has its bounds


def test_a_job_without_decisions_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store: ObjectStore = open_store(str(tmp_path))
    submit(store, JOB)  # a record of before there were priorities and objectives
    assert "no decisions" in outcome("job", "--store", str(tmp_path), capsys=capsys)
    assert "no decisions" in outcome("job", "--shard", "0", "--store", str(tmp_path), capsys=capsys)
    told_of = facts("job", "--store", str(tmp_path), capsys=capsys)
    assert (told_of["objective"], told_of["priority"], told_of["decisions"]) == ("energy", 0, {})


def test_a_shard_that_the_job_does_not_have_is_refused(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["un0", "explain", "job", "--shard", "4", "--store", place])
        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code == 2
    assert "shards 0 to 3" in capsys.readouterr().err
