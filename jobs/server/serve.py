"""``un0 serve``: keeps a supervisor process running, and serves HTTP beside it.

The two share nothing but the store.
"""

from __future__ import annotations

import importlib
import logging
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random

import psutil

from cluster.clock import monotonic_s
from cluster.errors import UserError
from cluster.stopping import Stop
from jobs.listening import stop_requests
from jobs.server.held import Pause
from jobs.server.supervise import EXIT_USAGE, READY, ServerOptions, log_to_stderr, new_server_id

STOP_S = 29.0  # from the signal to the end of all processes
CHILD_S = 26.5  # of which the supervisor has so much
WELL_S = 60.0  # a supervisor that has lived so long is started again at once
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HttpFace:
    """Where HTTP is served: HOST:PORT. no_auth: without tokens."""

    address: str
    no_auth: bool = False


class Keeper:
    """Starts the supervisor process, and starts it again when it has died; a thread of its own.

    refused: it could not use its store or address at its first start, and has said why.
    """

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._child: subprocess.Popen[str] | None = None
        self._ending = threading.Event()
        self._pause = Pause()
        self.ready = threading.Event()
        self.refused = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="un0-keeper", daemon=True)

    def start(self) -> None:
        """Start keeping it."""
        self._thread.start()

    def end(self, within_s: float) -> None:
        """End it, with all that it has started; by force when the time is up."""
        self._ending.set()
        until_s = monotonic_s() + within_s
        child = self._child
        if child is None:
            return
        family = _family(child.pid)
        with suppress(ProcessLookupError):
            child.terminate()
        try:
            child.wait(max(0.1, until_s - monotonic_s()))
        except subprocess.TimeoutExpired:
            logger.warning("the supervisor did not end in time and is killed")
            family += _family(child.pid)
            child.kill()
            child.wait()
        _kill(family)

    def _keep(self) -> None:
        predecessor = ""
        while not self._ending.is_set():
            options = replace(self._options, server_id=new_server_id(), predecessor=predecessor)
            began_s = monotonic_s()
            code = self._one_life(options)
            if self._ending.is_set():
                return
            if code == EXIT_USAGE and not self.ready.is_set():
                self.refused.set()
                return
            predecessor = options.server_id
            if monotonic_s() - began_s > WELL_S:
                self._pause.end()
            wait_s = self._pause.begin(monotonic_s(), Random())
            logger.warning("the supervisor ended with %s; again in %.1f s", code, wait_s)
            self._ending.wait(wait_s)

    def _one_life(self, options: ServerOptions) -> int:
        """Run it to its end; its exit code."""
        child = subprocess.Popen(
            options.arguments(),
            stdin=subprocess.PIPE,  # closed when this process ends, by which it knows
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for this process
        )
        self._child = child
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith(f"{READY} "):
                self.ready.set()
        return child.wait()


def serve(options: ServerOptions, http: HttpFace | None) -> int:
    """Serve until SIGINT or SIGTERM; then everything has ended within 30 s. The exit code.

    Prints one line on standard output once it is ready. Raises UserError.
    """
    log_to_stderr(as_json=options.as_json)
    with stop_requests(STOP_S) as stop:
        face = _http(options, http)
        keeper = Keeper(options)
        keeper.start()
        try:
            if face is None:
                return _wait(options, keeper, stop)
            return face(keeper, stop)
        finally:
            keeper.end(min(CHILD_S, max(1.0, stop.left_s - (STOP_S - CHILD_S))))


def _wait(options: ServerOptions, keeper: Keeper, stop: Stop) -> int:
    said = False
    while not stop.times and not keeper.refused.is_set():
        if keeper.ready.is_set() and not said:
            said = True
            print(f"ready: jobs of {options.store} are run; stop with Ctrl-C", flush=True)
        threading.Event().wait(0.1)
    return EXIT_USAGE if keeper.refused.is_set() else 0


def _http(options: ServerOptions, http: HttpFace | None) -> Callable[[Keeper, Stop], int] | None:
    """What serves HTTP until it is to stop; None without."""
    if http is None:
        return None
    try:
        server = importlib.import_module("jobs.server.http")  # FastAPI takes a second
    except ModuleNotFoundError as error:
        raise UserError(
            f"--http {http.address}: {error.name} is not installed; "
            "pip install 'un0-cluster[serve]'"
        ) from None
    host, port = server.host_port(http.address)
    store = options.opened()

    def run(keeper: Keeper, stop: Stop) -> int:
        def over() -> bool:
            return stop.times > 0 or keeper.refused.is_set()

        def ready(url: str) -> None:
            print(f"ready: {url} serves the jobs of {options.store}; stop with Ctrl-C", flush=True)

        auth = server.AuthOptions(no_auth=http.no_auth)
        server.run_http(host, port, store, auth, over, on_ready=ready)
        return EXIT_USAGE if keeper.refused.is_set() else 0

    return run


def _family(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=1.0)
