"""``un0 serve``: run the jobs of a store, for as long as it is not stopped."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.cli.options import Address, EndpointUrl, SingleWriter, Sse, SseKmsKey, Store
from jobs.defaults import DEFAULT_STORE


def serve_command(
    store: Store = DEFAULT_STORE,
    address: Address = None,
    http: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Serve the HTTP API there, too.")
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="HTTP without tokens; on 127.0.0.1 or ::1 only.")
    ] = False,
    endpoint_url: EndpointUrl = None,
    single_writer: SingleWriter = False,
    sse: Sse = None,
    sse_kms_key: SseKmsKey = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Log lines on standard error as JSON objects.")
    ] = False,
) -> None:
    """Run the jobs that are submitted to a store, until it is stopped."""
    from jobs.server.serve import HttpFace, serve
    from jobs.server.supervise import ServerOptions

    options = ServerOptions(
        store, endpoint_url, single_writer, sse, sse_kms_key, address, as_json=as_json
    )
    code = serve(options, HttpFace(http, no_auth) if http else None)
    if code:
        raise typer.Exit(code)
