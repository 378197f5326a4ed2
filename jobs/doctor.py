"""Check a machine and a store within seconds. Checks run in parallel, each with a time limit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster.clock import monotonic_s
from cluster.errors import ClusterError
from cluster.health import Check, Status

LIMIT_S = 8.0  # of any check; all run at once
CORRECT = "correct what is named here, then run `un0 doctor` again"
NO_DISK = 1e9  # free bytes with which a run would soon stop


@dataclass(frozen=True)
class Where:
    """What to check besides the machine. address: of a Ray cluster; None: RAY_ADDRESS."""

    store: str
    endpoint_url: str | None = None
    address: str | None = None
    sse: str | None = None
    sse_kms_key: str | None = None


Finding = tuple[Status, str, str | None]  # status, detail, fix
Found = Finding | list[Check]  # of one check, named as its probe is, or of several


@dataclass(frozen=True)
class Probe:
    """A check to run. silent: the result if it does not answer within ``limit_s``."""

    name: str
    run: Callable[[Where], Found]  # may raise; a ClusterError's message is the finding
    silent: Status = "warn"
    silent_fix: str = "see whether the machine is overloaded, then run `un0 doctor` again"
    limit_s: float = LIMIT_S


def examine(where: Where, probes: Sequence[Probe]) -> list[Check]:
    """Run all probes at once. Never raises; takes no longer than the longest limit.

    A probe that does not answer is left behind in a thread that does not keep the process alive.
    """
    found: dict[str, list[Check]] = {}
    threads = [
        threading.Thread(target=_run, args=(probe, where, found), daemon=True) for probe in probes
    ]
    began_s = monotonic_s()
    for thread in threads:
        thread.start()
    for probe, thread in zip(probes, threads, strict=True):
        thread.join(max(0.0, began_s + probe.limit_s - monotonic_s()))
    answered = dict(found)  # what comes later does not count
    each = (answered.get(probe.name, [_silent(probe)]) for probe in probes)
    return [check for checks in each for check in checks]


def worst(checks: Sequence[Check]) -> Status:
    """The worst status of the checks."""
    order: tuple[Status, ...] = ("fail", "warn")
    return next((s for s in order if any(check.status == s for check in checks)), "ok")


def enough(free: float, none: float, fix: str) -> tuple[Status, str | None]:
    """Status and fix for free space: less than ``none`` fails, less than three times that warns."""
    if free < none:
        return "fail", fix
    return ("warn", fix) if free < 3 * none else ("ok", None)


def _run(probe: Probe, where: Where, found: dict[str, list[Check]]) -> None:
    answer: Found
    try:
        answer = probe.run(where)
    except ClusterError as error:  # it names the thing, the value and the fix
        answer = "fail", str(error), error.fix or CORRECT
    except BaseException as error:  # a check that fails is a finding, whatever it was
        detail = f"the check failed: {type(error).__name__}: {_one_line(error)}"
        answer = "fail", detail, "fix the cause named here; if it is not yours, report it"
    if isinstance(answer, tuple):
        status, detail, fix = answer
        answer = [Check(name=probe.name, status=status, detail=detail, fix=fix)]
    found[probe.name] = answer


def _silent(probe: Probe) -> Check:
    detail = f"did not answer within {probe.limit_s:g} s"
    return Check(name=probe.name, status=probe.silent, detail=detail, fix=probe.silent_fix)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or "no message"
