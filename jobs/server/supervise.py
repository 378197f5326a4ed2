"""The process of a server that runs jobs: ``python -m jobs.server.supervise``, a child of
``un0 serve``.

Ray may end a driver's process, and a driver may hang in Ray, so this is a process of its own. It
ends when its parent does: then its standard input is closed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from random import Random

from cluster.actors.options import ModelWork, RunOptions, RunRequest
from cluster.clock import monotonic_s, utc_now
from cluster.errors import ClusterError, UserError
from cluster.stopping import Stop, Stopped
from cluster.storage.object_store import ObjectStore
from cluster.storage.servers import sign_off
from cluster.types import JobRecord
from jobs.follow import request_of
from jobs.listening import listening, stop_requests
from jobs.server.held import Pause
from jobs.server.ports import Fleet
from jobs.server.supervisor import Identity, Supervisor
from jobs.service.prepare import with_model
from jobs.service.store_options import StoreOptions

TICK_S = 1.0
STOP_S = 25.0  # from the signal to the end of this process
RUNS_S = 12.0  # of which runs have so much to commit what is generated
EXIT_USAGE = 2
READY = "ready"  # on standard output, once
logger = logging.getLogger("jobs.server.supervise")  # it is run as __main__


@dataclass(frozen=True)
class ServerOptions(StoreOptions):
    """Where a server finds its store and its Ray. server_id: of this life of the process.

    predecessor: the server whose place it takes, which is known to be dead.
    """

    address: str | None = None
    server_id: str = ""
    predecessor: str = ""
    as_json: bool = False

    def arguments(self) -> list[str]:
        """The command line that gives these options to the process."""
        return [sys.executable, "-m", "jobs.server.supervise", json.dumps(asdict(self))]


def new_server_id() -> str:
    """An id that no other life of a server has: its host's name and some random digits."""
    host = "".join(c if c.isalnum() or c in "-." else "-" for c in socket.gethostname())
    return f"{host[:60] or 'host'}-{secrets.token_hex(4)}"


class SystemClock:
    """This machine's."""

    def monotonic_s(self) -> float:
        return monotonic_s()

    def utc(self) -> datetime:
        return utc_now()


class Requests:
    """Jobs as the scheduler is to see them. Reads each model once."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], tuple[str, ModelWork]] = {}

    def __call__(self, record: JobRecord) -> RunRequest:
        """Raises UserError, or un0's errors, where the model is not what it was."""
        workload = record.workload
        key = (workload.model, workload.model_rev)
        if key not in self._models:
            found, work = with_model(record, workload.model)
            self._models[key] = (found.workload.model, work)
        located, work = self._models[key]
        workload = workload.model_copy(update={"model": located})
        return request_of(record.model_copy(update={"workload": workload}), work)


def supervise(options: ServerOptions, stop: Stop) -> None:
    """Run the store's jobs until ``stop`` asks for the end. Raises UserError where the store or the
    address cannot be used."""
    from cluster.actors.connect import target

    target(options.address, os.environ)
    store = options.opened()
    if options.predecessor:
        with suppress(ClusterError):  # else its silence will tell
            sign_off(store, options.predecessor)
    import torch  # noqa: F401  # now: the first job's turn would take as much longer

    name = options.server_id or new_server_id()
    me = Identity(name, socket.gethostname(), os.getpid(), options.address)
    supervisor = Supervisor(store, me, Requests(), SystemClock(), Random())
    supervisor.tick()
    with suppress(OSError):
        print(READY, name, flush=True)
    pause = Pause()
    while not stop.times:
        _serve_with_a_fleet(supervisor, store, options, stop, pause)
        while not stop.times and monotonic_s() < pause.until_s:
            supervisor.tick()
            _wait(stop, TICK_S)
    with suppress(ClusterError):
        supervisor.sign_off()


def _serve_with_a_fleet(
    supervisor: Supervisor, store: ObjectStore, options: ServerOptions, stop: Stop, pause: Pause
) -> None:
    """Connect to Ray and run jobs there, until it is lost or ``stop`` asks for the end."""
    from cluster.actors.served import served_fleet  # Ray takes a second to import

    try:
        with _ticking(supervisor) as ticking:
            logger.info("connecting to Ray")
            with served_fleet(RunOptions(address=options.address), store.config, stop) as fleet:
                ticking.set()
                logger.info("Ray is there")
                _loop(supervisor, fleet, stop)
                pause.end()
                if supervisor.fleet is None:
                    raise ClusterError(supervisor.lost_because)
    except Stopped:
        return
    except (ClusterError, RuntimeError) as error:
        wait_s = pause.begin(monotonic_s(), Random())
        logger.warning("no Ray to run on: %s; next try in %.0f s", error, wait_s)
    finally:
        supervisor.fleet = None


def _loop(supervisor: Supervisor, fleet: Fleet, stop: Stop) -> None:
    supervisor.fleet = fleet
    while not stop.times and supervisor.fleet is not None:
        supervisor.tick()
        _wait(stop, TICK_S)
    until_s = monotonic_s() + RUNS_S
    while stop.times and monotonic_s() < until_s:
        if supervisor.stop_all(RUNS_S):
            break
        threading.Event().wait(0.25)


@contextmanager
def _ticking(supervisor: Supervisor) -> Iterator[threading.Event]:
    """Meanwhile jobs are paused and cancelled, and others hear that this server lives. Setting the
    event ends that."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(TICK_S):
            supervisor.tick()

    class Joined(threading.Event):
        def set(self) -> None:
            over.set()
            thread.join()
            super().set()

    thread = threading.Thread(target=work, name="un0-tick", daemon=True)
    thread.start()
    event = Joined()
    try:
        yield event
    finally:
        event.set()


def _wait(stop: Stop, seconds: float) -> None:
    """Until then, or until the end is asked for."""
    until_s = monotonic_s() + seconds
    while not stop.times and (left_s := until_s - monotonic_s()) > 0:
        threading.Event().wait(min(0.1, left_s))


class JsonLines(logging.Formatter):
    """A log record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"at": utc_now().isoformat(), "level": record.levelname.lower()}
        line |= {"logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_to_stderr(*, as_json: bool) -> None:
    """What this process logs, a line each."""
    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonLines() if as_json else plain)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for package in ("jobs", "cluster"):
        logging.getLogger(package).setLevel(logging.INFO)


def _end_with_parent() -> None:
    """A SIGTERM of one's own, once the parent is gone."""

    def work() -> None:
        with suppress(OSError, ValueError):
            sys.stdin.buffer.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=work, name="un0-parent", daemon=True).start()


def main() -> None:
    """The entry point. Options are one JSON object, the only argument."""
    parser = argparse.ArgumentParser(prog="python -m jobs.server.supervise", description=__doc__)
    parser.add_argument("options", help="of ServerOptions, as one JSON object")
    given = json.loads(parser.parse_args().options)
    options = ServerOptions(**{f.name: given[f.name] for f in fields(ServerOptions)})
    log_to_stderr(as_json=options.as_json)
    with listening(ends=True), stop_requests(STOP_S) as stop:
        _end_with_parent()
        code = 0
        try:
            supervise(options, stop)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            code = EXIT_USAGE
    sys.stderr.flush()
    os._exit(code)  # threads of Ray may be stuck


if __name__ == "__main__":
    main()
