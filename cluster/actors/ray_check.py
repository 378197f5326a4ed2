"""What keeps a run from its Ray, found without starting one: for ``un0 doctor``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

from cluster.actors.connect import check_node, cluster_address, target, ways_in
from cluster.actors.local_ray import check_processes, make_directory
from cluster.errors import UserError
from cluster.health import Check


def check_ray(address: str | None, cpus: int) -> list[Check]:
    """Whether a run with this --address gets its Ray; without one, on so many CPUs here.

    Takes some seconds at most, if a cluster does not answer.
    """
    checks: dict[str, Callable[[], str]] = {"ray cluster": lambda: _cluster(address)}
    try:
        if target(address, os.environ) is None:
            checks = {"ray files": _directory, "process limit": lambda: _processes(cpus)}
    except UserError:
        pass  # which the check itself says
    return [_finding(name, check) for name, check in checks.items()]


def _finding(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name=name, status="ok", detail=check())
    except UserError as error:
        detail, _, fix = str(error).partition("; ")
        return Check(name=name, status="fail", detail=detail, fix=fix or None)


def _cluster(address: str | None) -> str:
    host_port = cluster_address(target(address, os.environ) or "auto")
    token = ways_in(host_port, os.environ).get("RAY_AUTH_TOKEN")
    check_node(host_port, token)
    return f"the cluster at {host_port} answers, {'with' if token else 'without'} a token"


def _directory() -> str:
    directory = make_directory(os.environ)
    shutil.rmtree(directory, ignore_errors=True)
    return f"Ray's files go to a directory of their own in {directory.parent}"


def _processes(cpus: int) -> str:
    check_processes(cpus)
    return f"there may be enough threads for {cpus} CPUs"
