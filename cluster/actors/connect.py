"""Get to a Ray: the one this process is connected to, a cluster by address, or one of our own.

Every wait has a limit, and every failure is one line with what to do.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._common.utils import get_ray_address_file
from ray._private import ray_constants, services, worker
from ray.job_config import JobConfig

from cluster.actors.local_ray import (
    OBJECT_STORE_BYTES,
    RAY_FILES,
    StartFailed,
    check_processes,
    own_token,
    temporary_directory,
)
from cluster.actors.options import RunOptions
from cluster.actors.ray_door import (
    Door,
    Unreachable,
    answers,
    environment,
    find_token,
    knock,
    nodes_among,
    settings_for,
)
from cluster.actors.ray_thread import RayThread, Stuck, restore_handlers, shut_down
from cluster.actors.room import check_machine
from cluster.clock import monotonic_s
from cluster.errors import UserError
from cluster.stopping import Stop, Stopped
from un0.machine import usable_cpus

LOCAL = "local"
LOCAL_START_S = 180.0  # a few seconds on a quiet machine
CONNECT_S = 60.0
NODE_S = 10.0
SHUTDOWN_S = 60.0
logger = logging.getLogger(__name__)


class InstalledOnly(JobConfig):  # type: ignore[misc]
    """A job whose workers import what is installed.

    Ray would put the driver's working directory first on their path: a file of the user's named
    ``cluster.py`` would stand for this package.
    """

    def _serialize(self) -> Any:
        self._py_driver_sys_path.clear()
        return super()._serialize()


@contextmanager
def connected(options: RunOptions, stop: Stop | None = None) -> Iterator[str]:
    """A Ray for the time of the context; the name by which the energy log knows the cluster.

    A Ray that this process is connected to already is used and left as it is. Raises UserError, and
    Stopped when ``stop`` asks for it before Ray is up.
    """
    stop = stop or Stop()
    if ray.is_initialized():
        yield joined(options.address)
        return
    address = target(options.address, os.environ)
    if address is None:
        check_machine()
        with _local(max(usable_cpus(), options.replicas or 1), stop):
            yield LOCAL
    else:
        with _cluster(address, stop):
            yield str(ray.get_runtime_context().gcs_address)


def target(address: str | None, env: Mapping[str, str]) -> str | None:
    """The address to connect to: host:port or ``auto``; None for a Ray of our own.

    address: --address, before RAY_ADDRESS. Raises UserError for what cannot work.
    """
    source, value = "--address", address
    if value in (None, "", "auto") and env.get("RAY_ADDRESS"):
        source, value = "RAY_ADDRESS", env["RAY_ADDRESS"]
    if not value or value == LOCAL:
        return None
    if value.startswith("ray://"):
        raise UserError(
            f"{source} {value!r} is Ray Client's, which cannot stream a job's progress; on a node "
            "of the cluster give the head's own address, host:6379 or 'auto', or start un0 there "
            "with `ray job submit`"
        )
    host, _, port = value.rpartition(":")
    if value != "auto" and ("://" in value or not (host and port.isdecimal())):
        raise UserError(
            f"{source} {value!r} is no address of a Ray head; give host:port, such as 10.0.0.1:6379"
        )
    return value


def joined(address: str | None) -> str:
    """The name of the cluster that this process is connected to. Raises UserError for another."""
    if ray.util.client.ray.is_connected():
        raise UserError(
            "this process is connected to Ray by Ray Client (ray://), which cannot stream a job's "
            "progress; ray.shutdown() first, and connect on a node of the cluster with host:6379"
        )
    here, own = str(ray.get_runtime_context().gcs_address), worker._global_node.is_head()
    usual = (None, "", "auto", LOCAL) if own else (None, "", "auto")
    if address not in usual and not _same_host_port(cluster_address(str(address)), here):
        raise UserError(
            f"this process is connected to the Ray at {here}, and address {address!r} is another; "
            "leave the address out, or ray.shutdown() first"
        )
    return LOCAL if own else here


def _same_host_port(one: str, other: str) -> bool:
    """Whether both name one door, by name or by number."""
    if one == other:
        return True
    (left, _, port), (right, _, other_port) = one.rpartition(":"), other.rpartition(":")
    try:
        numbers = [{found[4][0] for found in socket.getaddrinfo(host.strip("[]"), None)}
                   for host in (left, right)]  # fmt: skip
    except OSError:
        return False
    return port == other_port and bool(set.intersection(*numbers))


def ways_in(address: str, env: Mapping[str, str], given: str | None = None) -> dict[str, str]:
    """The environment by which Ray can connect to host:port. Raises UserError if it cannot.

    given: the address in the user's words, for messages.
    """
    mode = env.get("RAY_AUTH_MODE", "").lower()
    token = None if mode == "disabled" else find_token(env)
    try:
        door: Door = knock(address, token)
    except Unreachable as why:
        raise UserError(
            f"no Ray cluster answers at {given or address!r}: {why}; check --address (or "
            "RAY_ADDRESS), or leave both out to run on this machine"
        ) from None
    settings = settings_for(address, door, env)
    if door.ray_version not in (None, ray.__version__):
        raise UserError(
            f"the Ray cluster at {address!r} runs Ray {door.ray_version} and this is "
            f"{ray.__version__}; install ray=={door.ray_version} here, or this version there"
        )
    return settings


def check_node(address: str, token: str | None) -> None:
    """UserError if no node of the cluster runs on this machine and answers.

    A driver needs one. Ray itself would look for it for a minute, and end this process without a
    word of use if it does not answer.
    """
    here: list[str] = []
    until_s = monotonic_s() + NODE_S  # one that has just been started is not known at once
    while not here and monotonic_s() < until_s:
        if ids := services.find_node_ids():
            try:
                here = nodes_among(address, ids, token)
            except Unreachable as why:
                raise UserError(
                    f"the Ray cluster at {address!r} stopped answering: {why}; see that its head "
                    "is well with `ray status`"
                ) from None
        if not here:
            time.sleep(0.5)
    if not here:
        raise UserError(
            f"no node of the Ray cluster at {address!r} runs on this machine; run un0 on one of "
            "its nodes, start one here with `ray start`, or use `ray job submit`"
        )
    if not any(answers(node) for node in here):
        raise UserError(
            f"this machine's Ray node, {here[0]}, does not answer; start it anew with `ray stop` "
            "and `ray start`, and see that no firewall is between"
        )


def cluster_address(address: str) -> str:
    """host:port as Ray will use it. Raises UserError.

    ``auto`` is the cluster that `ray start` has noted. Where there is none, Ray would take whatever
    Ray runs here, such as that of somebody's run, which ends with it.
    """
    if address == "auto":
        noted = services.find_bootstrap_address(None)
        if not noted:
            raise UserError(
                f"address 'auto' finds no cluster: `ray start` has noted none in "
                f"{get_ray_address_file(None)!r}; give its host:port, or start one with `ray start`"
            )
        return str(noted)
    try:
        return str(services.canonicalize_bootstrap_address(address))
    except (ValueError, OSError) as error:
        raise UserError(
            f"the Ray address {address!r} cannot be used: {_first_line(error)}; give host:port"
        ) from None


@contextmanager
def _cluster(address: str, stop: Stop) -> Iterator[None]:
    host_port = cluster_address(address)
    settings = ways_in(host_port, os.environ, address)
    check_node(host_port, settings.get("RAY_AUTH_TOKEN"))
    with environment(settings), _ray(CONNECT_S, stop, address=host_port):
        yield


@contextmanager
def _local(cpus: int, stop: Stop) -> Iterator[None]:
    check_processes(cpus)
    with (
        temporary_directory(os.environ) as directory,
        environment(own_token(os.environ)),
        _ray(
            LOCAL_START_S,
            stop,
            directory,
            address=LOCAL,
            num_cpus=cpus,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            _temp_dir=str(directory / RAY_FILES),
        ),
    ):
        yield


@contextmanager
def _ray(
    limit_s: float, stop: Stop, directory: Path | None = None, **arguments: Any
) -> Iterator[None]:
    """``ray.init(**arguments)``, and its end. directory: of a Ray that is started."""
    thread = RayThread()
    try:
        thread.call(lambda: _init(arguments), limit_s, stop)
    except Stuck:
        thread.end(shut_down)
        raise StartFailed(_stuck(limit_s, directory, arguments["address"])) from None
    except Stopped:
        thread.end(shut_down)
        raise
    except Exception as error:
        _shut_down(thread)
        raise StartFailed(_failed(error, directory, arguments["address"])) from None
    except BaseException:
        thread.end(shut_down)
        raise
    restore_handlers()
    try:
        yield
    finally:
        _shut_down(thread)


def _shut_down(thread: RayThread) -> None:
    try:
        thread.call(shut_down, SHUTDOWN_S)
    except Stuck:
        logger.warning("Ray did not end within %.0f s", SHUTDOWN_S)
    finally:
        thread.end()


def _init(arguments: dict[str, Any]) -> None:
    """Connect, and ship nothing of the user's directory: not for `uv run`, not for a hook."""
    before = ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV  # read from the environment at import
    ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False
    try:
        ray.init(
            log_to_driver=False,
            logging_level=logging.ERROR,
            job_config=InstalledOnly(),
            _skip_env_hook=True,
            **arguments,
        )
    finally:
        ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = before


def _stuck(limit_s: float, directory: Path | None, address: str) -> str:
    if directory is None:
        return (
            f"the Ray cluster at {address!r} answers, but no connection came about in "
            f"{limit_s:.0f} s; see whether this machine's node is well with `ray status`, and that "
            "no firewall is between the nodes"
        )
    return (
        f"a Ray on this machine did not start in {limit_s:.0f} s; see that memory is free, and the "
        f"logs in {directory}"
    )


def _failed(error: Exception, directory: Path | None, address: str) -> str:
    why = _first_line(error.__cause__ or error)
    if directory is None:
        fix = "run un0 on a node of that cluster, or with `ray job submit`"
        return f"cannot connect to the Ray cluster at {address!r}: {why}; {fix}"
    return (
        f"a Ray on this machine could not start: {why}; see the logs in {directory}, or give "
        "--address of a Ray that runs"
    )


def _first_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}…"
