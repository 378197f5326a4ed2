"""Which RAPL counters are metered: those that move, each once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.metering.choice import Choice, Refusal
from cluster.metering.rapl_choice import choose_rapl
from cluster.metering.source import Refused
from tests.support.rapl_world import Counter, RaplWorld, steady

Chosen = tuple[RaplWorld, dict[str, Choice], list[Refusal]]
Choose = Callable[..., Chosen]


@pytest.fixture
def choose(tmp_path: Path) -> Iterator[Choose]:
    """Chooses among zones of these names, in order; the choices by hw_id."""
    opened: list[tuple[RaplWorld, list[Choice]]] = []

    def choose(zones: dict[str, Counter], **more: object) -> Chosen:
        paths: dict[str, tuple[str, Counter]] = {}
        for name, counter in zones.items():
            parent = [path for path in paths if path.count(":") == 1][-1:] or [""]
            if name.endswith("dram"):
                paths[f"{parent[0]}/{parent[0]}:0"] = ("dram", counter)
            else:
                paths[f"intel-rapl:{len(paths)}"] = (name, counter)
        flat = {path.rpartition("/")[2]: zone for path, zone in paths.items()}
        world = RaplWorld(tmp_path, flat, **more)  # type: ignore[arg-type]
        choices, notes = choose_rapl(world.machine())
        opened.append((world, choices))
        return world, {choice.source.device.hw_id: choice for choice in choices}, notes

    yield choose
    for world, choices in opened:
        for choice in choices:
            choice.source.close()
        world.close()


def wobbling(watts: float, swing: float, hertz: float = 7.0) -> Counter:
    return lambda s: watts * s + swing * math.sin(hertz * s)


def test_one_counter_shown_for_each_die_is_added_once(choose: Choose) -> None:
    socket = wobbling(68, 2)
    world, chosen, notes = choose({"package-0-die-0": socket, "package-0-die-1": socket})
    assert list(chosen) == ["package-0-die-0"]
    (note,) = notes
    assert note.device == "package-0-die-1"
    assert "package-0-die-0" in note.reason
    source = chosen["package-0-die-0"].source
    before = source.read()
    world.go_on(10)
    after = source.read()
    assert (after.energy_mj or 0) - (before.energy_mj or 0) == pytest.approx(680_000, rel=0.1)
    assert after.quality == "measured_counter"


def test_a_mirror_under_another_name_and_from_another_start_is_found(choose: Choose) -> None:
    socket = wobbling(150, 4)
    zones = {"package-0": socket, "package-1": lambda s: 12_345 + socket(s)}
    _, chosen, notes = choose(zones)
    assert list(chosen) == ["package-0"]
    assert [note.device for note in notes] == ["package-1"]


@pytest.mark.parametrize("watts", [68.7, 70.0, 90.0])
def test_dies_with_counters_of_their_own_are_kept(choose: Choose, watts: float) -> None:
    zones = {"package-0-die-0": steady(68), "package-0-die-1": steady(watts)}
    dies = {0: (0, 0), 1: (0, 0), 2: (0, 1), 3: (0, 1)}
    _, chosen, notes = choose(zones, dies=dies)
    assert list(chosen) == list(zones)
    assert notes == []
    assert {choice.source.provider for choice in chosen.values()} == {"rapl"}


def test_where_every_counter_stands_still_rapl_is_refused(choose: Choose) -> None:
    zones = {"package-0": steady(0), "package-1": lambda s: 60_293.987 + 0 * s}
    with pytest.raises(Refused, match=r"package-0: RAPL energy_uj stood still.*package-1"):
        choose(zones)


def test_one_socket_of_two_that_stands_still_is_estimated_by_itself(choose: Choose) -> None:
    zones = {"package-0": steady(50), "package-1": steady(0), "package-1-dram": steady(3)}
    world, chosen, notes = choose(zones)
    assert list(chosen) == ["package-0", "package-1"]
    well, still = chosen.values()
    assert (well.source.provider, still.source.provider) == ("rapl", "cpu-estimate")
    assert "stood still" in still.refused[0].reason
    assert "estimate of package-1" in notes[0].reason  # its memory is in there
    before = still.source.read()
    world.go_on(10)
    after = still.source.read()
    assert after.quality == "estimated"
    # two threads of its own, half busy: (3.5 + 0.74) W x 10 s
    assert (after.energy_mj or 0) - (before.energy_mj or 0) == pytest.approx(42_400, rel=0.01)


def test_a_socket_without_a_cpu_online_is_left_out(choose: Choose) -> None:
    zones = {"package-0": steady(50), "package-1": steady(0)}
    _, chosen, notes = choose(zones, dies={0: (0, 0), 1: (0, 0)})
    assert list(chosen) == ["package-0"]
    assert "no CPU of it is online" in notes[0].reason


def test_memory_whose_counter_is_always_zero_is_left_out_and_tiny_is_kept(choose: Choose) -> None:
    zones = {"package-0": steady(0.5), "package-0-dram": steady(0)}
    _, chosen, notes = choose(zones)
    assert list(chosen) == ["package-0"]
    assert "memory is not metered" in notes[0].reason


def test_low_power_machines_are_not_refused(choose: Choose) -> None:
    zones = {"package-0": steady(0.4), "package-0-dram": steady(0.02)}
    _, chosen, notes = choose(zones, load=0.02, dies=dict.fromkeys(range(4), (0, 0)))
    assert list(chosen) == ["package-0", "package-0-dram"]
    assert notes == []


@pytest.mark.parametrize("watts", [0.001, 20_000.0])
def test_far_too_slow_or_fast_is_refused(choose: Choose, watts: float) -> None:
    with pytest.raises(Refused, match=r"only .* mW|jumped"):
        choose({"package-0": steady(watts)})


def test_the_power_limit_of_the_zone_counts(tmp_path: Path) -> None:
    world = RaplWorld(tmp_path, {"intel-rapl:0": ("package-0", steady(3_000))})
    (tmp_path / "intel-rapl:0" / "constraint_0_max_power_uw").write_text("65000000\n")
    (tmp_path / "intel-rapl:0" / "constraint_1_max_power_uw").write_text("0\n")
    with pytest.raises(Refused, match="at most 260 W"):
        choose_rapl(world.machine())
    world.close()
