"""Which RAPL zones of a machine are metered: each joule once, and no counter that stands still."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

from cluster.clock import monotonic_ns
from cluster.hardware.proc import STAT, machine_cpu_s, threads_cpu_s
from cluster.metering.choice import Choice, Refusal
from cluster.metering.estimate import CpuEstimate
from cluster.metering.guarded import Guarded, Wait, prove
from cluster.metering.mirrors import ROUGHLY, Pair
from cluster.metering.plausibility import limits_of
from cluster.metering.rapl import RaplSource, max_power_mw, open_rapl
from cluster.metering.source import ClockNs, Refused, Source
from cluster.metering.topology import TOPOLOGY, threads_of

SAME_PACKAGE_S, OTHER_PACKAGE_S = 1.0, 3.0  # how long two counters must agree to be one
GIVE_UP_S = 4.0  # longest time to decide that
TURN_S = 0.0002


def _spin(seconds: float) -> None:
    """Keep one CPU busy: it loads one package of two, so that independent counters drift apart."""
    end_ns = monotonic_ns() + int(seconds * 1e9)
    while monotonic_ns() < end_ns:
        pass


@dataclass(frozen=True)
class Machine:
    """Where to look, and how to pass the time, idle and at work."""

    powercap: Path
    topology: Path = TOPOLOGY
    stat: Path = STAT
    clock_ns: ClockNs = monotonic_ns
    wait: Wait = time.sleep
    work: Wait = _spin


def choose_rapl(machine: Machine) -> tuple[list[Choice], list[Refusal]]:
    """The RAPL sources of a machine, and what was left out and why.

    A package whose counter cannot be right is estimated by itself. Raises Refused if there is none
    that can, or one may not be read.
    """
    sources = open_rapl(machine.powercap, machine.clock_ns)
    packages = [source for source in sources if source.device.zone == "package"]
    guarded = [_guard(source, machine, len(packages)) for source in sources]
    refused = dict(zip(sources, prove(guarded, machine.wait), strict=True))
    good = [source for source in sources if refused[source] is None]
    choices: list[Choice] = []
    try:
        if not any(source in good for source in packages):
            raise _all_refused([(source.device.hw_id, refused[source]) for source in packages])
        mirrors, notes = _mirrors(good, machine.work)
        estimated = {source.device.hw_id for source in packages if source not in good}
        for source, guard in zip(sources, guarded, strict=True):
            note = _left_out(source, refused[source], mirrors, estimated, machine)
            if note is not None:
                notes.append(note)
            elif (why := refused[source]) is None:
                choices.append(Choice(guard))
            else:
                estimate = _estimate(source, machine, len(packages))
                choices.append(Choice(estimate, (Refusal.of(source.provider, why),)))
    finally:
        used = [choice.source for choice in choices]
        for guard in guarded:
            if guard not in used:
                guard.close()
    return choices, notes


def _left_out(
    source: RaplSource,
    refused: Refused | None,
    mirrors: dict[RaplSource, RaplSource],
    estimated: set[str],
    machine: Machine,
) -> Refusal | None:
    """Why a zone gets no row of its own; None if it does."""
    device = source.device
    note = partial(Refusal, source.provider, device=device.hw_id)
    if source in mirrors:
        return note(
            f"{device.hw_id} is the counter of {mirrors[source].device.hw_id} once more: both went "
            "on alike all the time that they were watched. It is not added",
            harmless=True,
        )
    if device.zone == "dram":
        if device.hw_parent in estimated:
            return note(
                f"{device.hw_id} is part of the estimate of {device.hw_parent}", harmless=True
            )
        if refused is not None:
            return note(f"{device.hw_id}: {refused.reason}; this memory is not metered")
    elif refused is not None and threads_of(device.hw_id, machine.topology) == frozenset():
        return note(f"{device.hw_id}: {refused.reason}, and no CPU of it is online", harmless=True)
    return None


def _all_refused(packages: Sequence[tuple[str, Refused | None]]) -> Refused:
    reasons = [f"{name}: {why.reason}" for name, why in packages if why is not None]
    return Refused("; ".join(reasons), next((why.fix for _, why in packages if why), None))


def _guard(source: RaplSource, machine: Machine, packages: int) -> Guarded:
    limit_mw = max_power_mw(source.zone.path)
    if source.device.zone == "dram":
        return Guarded(source, limits_of(source.device, limit_mw))
    threads = threads_of(source.device.hw_id, machine.topology)

    def busy_s() -> float | None:
        try:
            return threads_cpu_s(threads, machine.stat)[0] if threads else None
        except (OSError, ValueError):
            return None

    limits = limits_of(source.device, limit_mw, len(threads or ()) or 1)
    return Guarded(source, limits, busy_s, partial(_estimate, source, machine, packages))


def _estimate(source: RaplSource, machine: Machine, packages: int) -> Source:
    """Of one package; by its part of the machine where nobody knows which threads are its own."""
    threads = threads_of(source.device.hw_id, machine.topology)

    def cpu_s() -> tuple[float, float]:
        if threads is not None:
            return threads_cpu_s(threads, machine.stat)
        busy_s, idle_s = machine_cpu_s(machine.stat)
        return busy_s / packages, idle_s / packages

    return CpuEstimate(cpu_s, machine.clock_ns, source.device)


def _mirrors(
    sources: Sequence[RaplSource], work: Wait
) -> tuple[dict[RaplSource, RaplSource], list[Refusal]]:
    """Each counter that is another one shown again, and that other; notes where nobody can tell."""
    pairs = {(a, b): Pair() for a, b in combinations(sources, 2) if _may_be_one(a, b)}
    undecided, mirrors = list(pairs), dict[RaplSource, RaplSource]()
    before = {source: source.read() for source in sources}
    end_ns = max(reading.at_ns for reading in before.values()) + int(GIVE_UP_S * 1e9)
    while undecided and max(reading.at_ns for reading in before.values()) <= end_ns:
        work(TURN_S)
        after = {source: source.read() for source in sources}
        for a, b in tuple(undecided):
            pairs[a, b].seen(before[a], before[b], after[a])
            verdict = pairs[a, b].verdict(
                SAME_PACKAGE_S if _socket(a) == _socket(b) else OTHER_PACKAGE_S
            )
            if verdict is not None:
                undecided.remove((a, b))
            if verdict == "one":
                mirrors.setdefault(b, mirrors.get(a, a))
        before = after
    notes: list[Refusal] = []
    for a, b in undecided:
        agreement = pairs[a, b].agreement()
        if _socket(a) != _socket(b) or agreement is None:
            continue
        if agreement <= ROUGHLY:
            mirrors.setdefault(b, mirrors.get(a, a))
        else:
            notes.append(_untold(a, b))
    return mirrors, notes


def _untold(a: RaplSource, b: RaplSource) -> Refusal:
    return Refusal(
        a.provider,
        f"whether {a.device.hw_id} and {b.device.hw_id} are one counter could not be determined in "
        f"{GIVE_UP_S:.0f} s; they are added",
        "run un0 meters again while the machine is quiet",
        device=b.device.hw_id,
    )


def _may_be_one(a: RaplSource, b: RaplSource) -> bool:
    """Memory is compared within a socket only: idle memory draws alike everywhere."""
    if a.device.zone == b.device.zone == "dram":
        return _socket(a) == _socket(b)
    return a.device.zone == b.device.zone


def _socket(source: RaplSource) -> str:
    return source.device.hw_id.partition("-die-")[0]
