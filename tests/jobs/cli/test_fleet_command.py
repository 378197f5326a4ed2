"""``un0 fleet``, with a coordinator and without."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cluster.clock import utc_now
from cluster.errors import UserError
from cluster.progress import FleetView, NodeView, SlotView
from cluster.scheduler.priors import prior_profile
from cluster.scheduler.profiles import Profile
from cluster.scheduler.request import OperatingPoint, Performance, StandbyCost
from cluster.storage.open import open_store
from cluster.storage.profiles import save_profile
from jobs.cli.main import main

SLOT = SlotView(
    "r-1",
    "node-1",
    "alpha",
    "NVIDIA L4",
    "parked",
    "",
    "no work for its model",
    75.0,
    0,
    0.0,
    False,
)
NODE = NodeView("node-1", "alpha", {"rack": "7"}, ("NVIDIA L4 GPU-1",))
VIEW = FleetView(
    epoch=3,
    nodes=(NODE,),
    seats=(SLOT,),
    jobs=("job-a",),
    power_w=72.0,
    cap_w=500.0,
    epochs={"job-a": 3},
)
CALLS: list[Any] = []


@pytest.fixture
def place(tmp_path: Path) -> str:
    """A store that knows one device by measurement and one by its data sheet."""
    store = open_store(str(tmp_path / "store"))
    at_work = Performance(OperatingPoint(256), 2000.0, 60.0, "measured_counter", samples=40)
    measured = Profile("NVIDIA L4", "0123456789abcdef/bf16", StandbyCost(22, 9, 300), (at_work,))
    save_profile(store, measured, utc_now() - timedelta(days=3))
    save_profile(store, prior_profile("Tesla T4", "rev/fp32", 1.0, batch_size=256), utc_now())
    return str(tmp_path / "store")


def fleet(
    *arguments: str,
    view: FleetView | None,
    patch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str:
    launch: Any = ModuleType("cluster.actors.launch")  # no Ray needs to be started for this
    launch.fleet_view = lambda _address, _store: view
    launch.cap_fleet = lambda *call: CALLS.append(call)
    launch.drain_node = lambda *call: CALLS.append(call) or NODE
    patch.setitem(sys.modules, "cluster.actors.launch", launch)
    patch.setattr(sys, "argv", ["un0", "fleet", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    assert not end.value.code, out + err
    return out


def test_a_running_fleet_shows_who_is_parked_and_why(
    place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = fleet("--store", place, view=VIEW, patch=monkeypatch, capsys=capsys)
    slot = next(line for line in shown.splitlines() if line.startswith("r-1"))
    assert "parked" in slot
    assert "no work for its model" in slot
    for words in (
        "running job-a (run 3)",
        "up to 72 W, of at most 500 W",
        "NVIDIA L4 GPU-1",
        "rack=7",
    ):
        assert words in shown
    assert "No coordinator" not in shown
    assert "Coordinator 3" not in shown, "that is the number of the job's run"


def test_profiles_tell_how_they_are_known_and_how_old_they_are(
    place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = fleet("--store", place, view=None, patch=monkeypatch, capsys=capsys)
    assert "No coordinator is running there" in shown
    known = next(line for line in shown.splitlines() if "0123456789ab/bf16" in line)
    assert "30 mJ" in known
    assert "measured counter" in known
    assert "3 days ago" in known
    guess = next(line for line in shown.splitlines() if "Tesla T4" in line)
    assert "estimated" in guess
    assert " to " in guess  # an estimate has its bounds
    assert "never: a guess" in guess


def test_scripts_get_the_same_facts(
    place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = json.loads(
        fleet("--store", place, "--json", view=VIEW, patch=monkeypatch, capsys=capsys)
    )
    assert said["fleet"]["seats"][0]["why"] == "no work for its model"
    assert said["here"] is None
    assert {p["hardware"] for p in said["profiles"]} == {"NVIDIA L4", "Tesla T4"}
    said = json.loads(
        fleet("--store", place, "--json", view=None, patch=monkeypatch, capsys=capsys)
    )
    assert said["fleet"] is None
    assert any(device["hw_type"] == "cpu" for device in said["here"]["devices"])


def test_an_empty_store_says_how_to_fill_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(tmp_path / "new")
    shown = fleet("--store", place, view=None, patch=monkeypatch, capsys=capsys)
    assert f"un0 calibrate --store {place}" in shown
    assert not Path(place).exists()  # looking writes nothing


@pytest.mark.parametrize(
    ("asked", "cap_w", "said"),
    [("500W", 500.0, "cap is 500 W"), ("1.2kW", 1200.0, "cap is 1,200 W"), ("off", None, "no cap")],
)
def test_a_cap_is_given_as_people_write_watts(
    asked: str,
    cap_w: float | None,
    said: str,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ("cap", asked, "--store", place, "--address", "ray:1")
    shown = fleet(*arguments, view=VIEW, patch=monkeypatch, capsys=capsys)
    assert said in shown
    address, config, watts = CALLS.pop()
    assert (address, config.uri, watts) == ("ray:1", f"file://{place}", cap_w)


def test_a_node_is_drained_within_a_time(
    place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The store may be named before the subcommand too: it must not be taken for another."""
    arguments = ("--store", place, "drain", "alpha", "--within", "2m")
    shown = fleet(*arguments, view=VIEW, patch=monkeypatch, capsys=capsys)
    assert "Node alpha (node-1) gets no more work" in shown
    _, config, *rest = CALLS.pop()
    assert (config.uri, rest) == (f"file://{place}", ["alpha", 120.0])


def test_a_fleet_that_is_nowhere_cannot_be_steered(
    place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for arguments in (("cap", "500W"), ("drain", "alpha")):
        monkeypatch.setattr(sys, "argv", ["un0", "fleet", *arguments, "--store", place])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
        assert "give --address, or set RAY_ADDRESS" in capsys.readouterr().err


def test_a_node_has_its_host_name_and_the_beginning_of_its_id() -> None:
    nodes = tuple(NodeView(f"{n}{n}{n}{n}bcdef0123456789", f"gpu-{n}", {}, ()) for n in range(3))
    twins = (NodeView("a" * 20, "twin", {}, ()), NodeView("b" * 20, "twin", {}, ()))
    view = FleetView(0, nodes + twins, (), (), 0.0, None)
    assert view.node("gpu-1") is view.node("1111bcdef012") is view.node("1111") is nodes[1]
    with pytest.raises(UserError, match="did you mean 'gpu-0'"):
        view.node("gpu0")
    with pytest.raises(UserError, match="`un0 fleet` lists the nodes"):
        view.node("1")
    with pytest.raises(UserError, match="2 nodes are called 'twin'; name one by its id: aaaaaaaaa"):
        view.node("twin")
