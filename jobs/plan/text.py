"""An answer as lines of text. Tables are made by ``jobs.cli.plan``."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.format import UNKNOWN, bounded, joules
from jobs.plan.answer import PlanAnswer

KWH = 3.6e6


def headline(answer: PlanAnswer) -> str:
    """One line: whether it can be, and with which nodes."""
    of = "" if answer.scenario is None else f"{answer.scenario}: "
    if not answer.feasible:
        return f"{of}infeasible: no plan meets this demand within these limits"
    mix = ", ".join(f"{count} x {_named(answer, name)}" for name, count in answer.mix.items())
    return f"{of}{mix or 'no nodes'}: planned, nothing here was measured"


def _named(answer: PlanAnswer, name: str) -> str:
    return f"{name} (hypothetical)" if name in answer.hypothetical else name


def first_to_know(answer: PlanAnswer) -> Iterator[str]:
    """A disagreement with the simulator before all else, then the other reasons."""
    simulated = answer.simulated
    if simulated is not None and not simulated.agrees:
        yield (
            f"THE SIMULATOR DISAGREES: {joules(simulated.energy_j_per_day)} a day, "
            f"{simulated.energy_error:+.0%} of the plan's (the margin is {simulated.margin:.0%}), "
            f"and {simulated.miss_rate:.2%} of jobs late"
        )
    yield from answer.reasons


def figures(answer: PlanAnswer) -> dict[str, str]:
    """The figures of a feasible plan, by what they are called."""
    low, high = answer.energy_low_j_per_day, answer.energy_high_j_per_day
    exact = low == answer.energy_j_per_day == high
    energy = bounded(answer.energy_j_per_day, *((None, None) if exact else (low, high)))
    lines = {
        "energy": f"{energy} a day",
        "money": money(answer.cost_per_day),
        "carbon": carbon(answer.carbon_g_per_day),
        "peak": UNKNOWN if answer.peak_power_w is None else f"{answer.peak_power_w:,.0f} W",
    }
    if answer.value is not None and answer.bound is not None and answer.gap is not None:
        lines["solver"] = (
            f"{answer.status}: objective {answer.value:,.6g}, bound {answer.bound:,.6g}, "
            f"gap {answer.gap:.3%}"
        )
    if answer.simulated is not None:
        lines["simulated"] = (
            f"{joules(answer.simulated.energy_j_per_day)} a day "
            f"({answer.simulated.energy_error:+.1%}), {answer.simulated.miss_rate:.2%} of jobs "
            f"late, over {answer.simulated.days} days"
        )
    if answer.headroom is not None:
        months = answer.headroom.months
        lines["headroom"] = (
            f"{answer.headroom.factor:.3g} times the demand"
            + ("" if months is None else f", in {months:.1f} months of growth")
            + f"; limited by {', '.join(answer.headroom.bottleneck)}"
        )
    if answer.stability is not None:
        lines["stability"] = (
            f"the same mix in {answer.stability.same_mix:.0%} of {answer.stability.samples} "
            "resamples"
        )
    return lines


def money(usd: float | None) -> str:
    return UNKNOWN if usd is None else f"{usd:,.2f} USD"


def carbon(g: float | None) -> str:
    return UNKNOWN if g is None else f"{g / 1e3:,.4g} kgCO2e"


def provenance_lines(answer: PlanAnswer) -> Iterator[str]:
    """How many figures have a source; each that has one, or is an estimate, with it."""
    sourced = [p for p in answer.provenance if p.source or p.quality or p.date]
    bare = len(answer.provenance) - len(sourced)
    for p in sourced:
        said = [part for part in (p.quality, p.source, str(p.date) if p.date else None) if part]
        bounds = "" if p.low is None and p.high is None else f" ({p.low:g} to {p.high:g})"
        yield f"{p.field} {p.value:g}{bounds}: {', '.join(said)}"
    if bare:
        yield f"{bare} other figures are as the file states them, without a source"
