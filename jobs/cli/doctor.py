"""``un0 doctor``: check this machine and a store before a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from jobs.cli.exits import EXIT_FAILED
from jobs.cli.options import Address, EndpointUrl, Json, Sse, SseKmsKey, Store, show_json
from jobs.defaults import DEFAULT_STORE
from jobs.doctor import Where, examine, worst
from jobs.doctor_checks import PROBES

if TYPE_CHECKING:
    from cluster.health import Check


def doctor_command(
    store: Store = DEFAULT_STORE,
    endpoint_url: EndpointUrl = None,
    address: Address = None,
    sse: Sse = None,
    sse_kms_key: SseKmsKey = None,
    as_json: Json = False,
) -> None:
    """Check this machine and a store, within ten seconds. Exit 1 if a run could not work."""
    checks = examine(Where(store, endpoint_url, address, sse, sse_kms_key), PROBES)
    if as_json:
        show_json({"checks": [check.model_dump() for check in checks]})
    else:
        _show(checks)
    if worst(checks) == "fail":
        raise typer.Exit(EXIT_FAILED)


def _show(checks: Sequence[Check]) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        print(f"{check.status:<4}  {check.name:<{width}}  {check.detail}")
        if check.fix and check.status != "ok":
            print(f"{'':<{width + 8}}fix: {check.fix}")
    counts = {s: sum(check.status == s for check in checks) for s in ("ok", "warn", "fail")}
    print(", ".join(f"{count} {status}" for status, count in counts.items()))
