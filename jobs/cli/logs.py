"""``un0 logs``: what happened to a job, and what the scheduler decided, in order of time."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.errors import Retryable
from jobs.cli.asking import StoreArguments, service_of, speaks_http
from jobs.cli.options import EndpointUrl, JobArgument, Json, Store, show_json
from jobs.defaults import DEFAULT_STORE

if TYPE_CHECKING:
    from cluster.storage.decisions import DecisionRecord
    from jobs.service.api import JobService
    from jobs.service.views import EventView

EVERY_S = 1.0


def logs_command(
    job_id: JobArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended, or Ctrl-C.")
    ] = False,
    leases: Annotated[
        bool, typer.Option("--leases", help="Also every assignment of shards to a replica.")
    ] = False,
    store: Store = DEFAULT_STORE,
    endpoint_url: EndpointUrl = None,
    as_json: Json = False,
) -> None:
    """Show what happened to a job and what the scheduler decided about it, in order of time."""
    where = StoreArguments(store, endpoint_url)
    service = service_of(where)
    timeline = _Timeline(service, where, job_id, leases=leases)
    if as_json and not follow:
        show_json(list(timeline.new()))
        return
    try:
        while True:
            over = follow and service.status(job_id).state.is_terminal
            with suppress(Retryable):
                for entry in timeline.new():
                    print(json.dumps(entry) if as_json else _line(entry), flush=True)
            if over or not follow:
                return
            time.sleep(EVERY_S)
    except KeyboardInterrupt:
        print("detached", file=sys.stderr)


class _Timeline:
    """Events and decisions, each shown once. Decisions are in the store alone: a server's history
    has none."""

    def __init__(
        self, service: JobService, where: StoreArguments, job_id: str, *, leases: bool
    ) -> None:
        self._service, self._job_id, self._leases = service, job_id, leases
        self._store = None if speaks_http() else where.opened(probe=False)
        self._after = 0
        self._decided: set[tuple[str, str, str, str | None]] = set()

    def new(self) -> Iterator[dict[str, Any]]:
        """What was not shown yet, by time."""
        events = self._service.events(self._job_id, self._after)
        self._after = max((event.id for event in events), default=self._after)
        entries = [_of_event(event) for event in events] + list(self._decisions())
        yield from sorted(entries, key=lambda entry: str(entry["at"]))

    def _decisions(self) -> Iterator[dict[str, Any]]:
        if self._store is None:
            return
        from cluster.storage.decisions import read_decisions

        for decision in read_decisions(self._store, self._job_id):
            if decision.kind == "lease" and not self._leases:
                continue
            same = (decision.run_id, str(decision.at), decision.why, decision.replica_id)
            if same not in self._decided:
                self._decided.add(same)
                yield _of_decision(decision)


def _of_event(event: EventView) -> dict[str, Any]:
    return {
        "at": event.at.isoformat(),
        "source": "event",
        "id": event.id,
        "kind": event.kind,
        "state": event.state,
        "message": event.message,
        "by": event.by,
    }


def _of_decision(decision: DecisionRecord) -> dict[str, Any]:
    return {
        "at": decision.at.isoformat(),
        "source": "decision",
        "kind": decision.kind,
        "message": decision.why,
        "by": decision.replica_id or decision.hardware or "scheduler",
    }


def _line(entry: dict[str, Any]) -> str:
    at = str(entry["at"])[:19].replace("T", " ")
    state = f" [{entry['state']}]" if entry.get("state") else ""
    return f"{at}  {entry['kind']:<10} {entry['message']}{state} ({entry['by']})"
