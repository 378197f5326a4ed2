from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.energy import ZERO_ENERGY, shares, sum_energy
from cluster.types import MISSING_ENERGY, Energy, EnergyQuality

millijoules = st.integers(0, 10**15)


@st.composite
def energies(draw: st.DrawFn) -> Energy:
    quality: EnergyQuality = draw(
        st.sampled_from(["measured_counter", "measured_power", "estimated", "missing"])
    )
    if quality == "missing":
        return MISSING_ENERGY
    value, method = draw(millijoules), draw(st.sampled_from(["nvml", "rapl", "tdp"]))
    if quality != "estimated":
        return Energy(energy_mj=value, quality=quality, method=method)
    low, high = draw(st.none() | st.integers(0, value)), draw(st.none() | millijoules)
    return Energy(energy_mj=value, low_mj=low, high_mj=high, quality=quality, method=method)


COUNTED = Energy(energy_mj=100, quality="measured_counter", method="nvml")
INTEGRATED = Energy(energy_mj=20, quality="measured_power", method="nvml-power")
ESTIMATED = Energy(energy_mj=7, low_mj=5, high_mj=11, quality="estimated", method="tdp")


def test_measured_parts_add_up_to_the_less_sure_quality() -> None:
    total = sum_energy([COUNTED, INTEGRATED, COUNTED])
    assert total == Energy(energy_mj=220, quality="measured_power", method="nvml+nvml-power")


def test_bounds_take_measured_parts_at_their_value() -> None:
    total = sum_energy([COUNTED, ESTIMATED])
    assert (total.energy_mj, total.low_mj, total.high_mj) == (107, 105, 111)
    assert total.quality == "estimated"


def test_an_estimate_without_bounds_leaves_the_total_without() -> None:
    vague = Energy(energy_mj=1, quality="estimated", method="guess")
    total = sum_energy([ESTIMATED, vague])
    assert (total.energy_mj, total.low_mj, total.high_mj) == (8, None, None)


def test_a_missing_part_makes_the_total_missing_and_shares_tell_the_rest() -> None:
    parts = [COUNTED, MISSING_ENERGY, ESTIMATED]
    assert sum_energy(parts) == MISSING_ENERGY
    known = shares(parts)
    assert (known.measured_mj, known.estimated_mj, known.known_mj) == (100, 7, 107)
    assert (known.parts, known.missing_parts) == (3, 1)


def test_what_is_not_known_is_none_never_zero() -> None:
    known = shares([MISSING_ENERGY])
    assert (known.measured_mj, known.estimated_mj, known.known_mj) == (None, None, None)
    assert shares([ESTIMATED]).measured_mj is None
    assert sum_energy([]) == ZERO_ENERGY


@given(st.lists(energies()), st.data())
def test_sums_may_be_built_up_in_any_grouping_and_order(
    parts: list[Energy], data: st.DataObject
) -> None:
    total = sum_energy(parts)
    assert sum_energy(data.draw(st.permutations(parts))) == total
    cut = data.draw(st.integers(0, len(parts)))
    assert sum_energy([sum_energy(parts[:cut]), sum_energy(parts[cut:])]) == total
    assert sum_energy([total, ZERO_ENERGY]) == total


@given(st.lists(energies()))
def test_a_total_is_whole_or_missing(parts: list[Energy]) -> None:
    total, known = sum_energy(parts), shares(parts)
    if known.missing_parts:
        assert total.energy_mj is None
    else:
        assert total.energy_mj == (known.known_mj or 0)
    if total.low_mj is not None:
        assert total.energy_mj is not None
        assert total.low_mj <= total.energy_mj
