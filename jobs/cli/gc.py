"""``un0 gc``: what nobody needs any more in a store."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jobs.cli.asking import StoreArguments
from jobs.cli.options import EndpointUrl, Json, SingleWriter, Sse, SseKmsKey, Store, show_json
from jobs.cli.progress import progress
from jobs.defaults import DEFAULT_STORE


def gc_command(
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete it. Without, it is only listed.")
    ] = False,
    store: Store = DEFAULT_STORE,
    endpoint_url: EndpointUrl = None,
    single_writer: SingleWriter = False,
    sse: Sse = None,
    sse_kms_key: SseKmsKey = None,
    as_json: Json = False,
) -> None:
    """List what nobody needs any more in a store; delete it with --yes.

    Attempts without a commit of jobs that have ended, what broken-off submissions left,
    idempotency keys older than a week, servers that are gone. No committed image is touched.
    """
    from cluster.clock import utc_now
    from jobs.service.gc import delete, find_garbage

    where = StoreArguments(store, endpoint_url, single_writer, sse, sse_kms_key)
    opened = where.opened(probe=yes)
    sums: dict[str, list[int]] = {}
    rows: list[dict[str, Any]] = []
    with progress("looking", quiet=as_json) as step:
        for found in find_garbage(opened, utc_now(), step):
            if yes:
                delete(opened, found)
            count = sums.setdefault(found.why, [0, 0])
            count[0] += 1
            count[1] += found.size_bytes or 0
            if as_json:
                row = {"key": found.key, "size_bytes": found.size_bytes, "why": found.why}
                rows.append(row | {"deleted": yes})
    if as_json:
        show_json(rows)
        return
    for why, (count_of, size_bytes) in sums.items():
        print(f"{count_of:,} objects, {size_bytes:,} bytes: {why}")
    if not sums:
        print("nothing to delete")
    elif not yes:
        print("Nothing is deleted yet: run it again with --yes.")
