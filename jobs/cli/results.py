"""``un0 results``: where a job's images are, and how to read them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jobs.cli.asking import StoreArguments, service_of
from jobs.cli.options import EndpointUrl, JobArgument, Json, Store, show_json
from jobs.defaults import DEFAULT_STORE

_FORMATS = ("uris", "duckdb", "pandas", "datasets", "json")


def _format(value: Any) -> str:
    if value not in _FORMATS:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(_FORMATS)}")
    return str(value)


def results_command(
    job_id: JobArgument,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            parser=_format,
            metavar="FORMAT",
            help="uris: addresses of the files; duckdb, pandas, datasets: Python that reads them; "
            "or json.",
        ),
    ] = "uris",
    store: Store = DEFAULT_STORE,
    endpoint_url: EndpointUrl = None,
    as_json: Json = False,
) -> None:
    """Say where a job's images are, complete or not: addresses, or code that reads them."""
    import os

    from jobs.service.results import LIBRARIES, snippet

    service = service_of(StoreArguments(store, endpoint_url))
    results = service.results(job_id)
    uris = service.uris(job_id)
    if as_json or form == "json":
        show_json(results.model_dump(mode="json") | {"uris": list(uris)})
        return
    for library in LIBRARIES:
        if library == form:
            endpoint = endpoint_url or os.environ.get("AWS_ENDPOINT_URL")
            print(snippet(library, results, list(uris), endpoint))
            return
    for uri in uris:
        print(uri)
