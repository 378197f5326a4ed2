"""Commands about a store: verify, grid, query, compact; and a local S3 server."""

from __future__ import annotations

import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cluster.errors import UserError
from jobs.cli.options import (
    EndpointUrl,
    JobArgument,
    Json,
    Sse,
    SseKmsKey,
    Store,
    plain_table,
    show_json,
    show_table,
    whole,
)
from jobs.cli.progress import progress
from jobs.defaults import DEFAULT_STORE


def verify_command(
    job_id: JobArgument,
    sample: Annotated[
        int | None,
        typer.Option(
            parser=whole(1, 1_000_000_000),
            metavar="N",
            help="Open only so many shards, drawn at random. The set of commits is checked whole.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Draw the sample of this number again.")
    ] = None,
    store: Store = DEFAULT_STORE,
    endpoint_url: EndpointUrl = None,
    as_json: Json = False,
) -> None:
    """Check that a job has every image exactly once, intact and decodable. Exit 1 if not."""
    from cluster.storage.open import open_store
    from cluster.storage.verify import verify

    if seed is not None and sample is None:
        raise UserError(f"--seed {seed} is of a sample; add --sample N, or leave it out")
    seed = secrets.randbelow(2**32) if seed is None else seed
    opened = open_store(store, endpoint_url=endpoint_url, probe=False)
    with progress("verifying", quiet=as_json) as on_shard:
        report = verify(opened, job_id, sample=sample, seed=seed, on_shard=on_shard)
    if as_json:
        show_json(
            {
                "ok": report.ok,
                "job_id": report.job_id,
                "images": report.images,
                "problems": list(report.problems),
                "pixel_sha256": report.pixel_sha256,
                "energy": report.energy.model_dump(),
                "sample": None if report.sample is None else asdict(report.sample),
            }
        )
    else:
        verdict = "ok" if report.ok else f"{len(report.problems)} problems"
        print(f"{report.job_id}: {verdict}, {report.images:,} images are right")
        if report.sample:
            drawn = report.sample
            print(
                f"  sample    {drawn.shards:,} of {drawn.of:,} shards were opened (--seed "
                f"{drawn.seed}); of the others no more than whether they are committed"
            )
        if report.pixel_sha256:
            print(f"  pixels    sha256 {report.pixel_sha256}")
        for problem in report.problems:
            print(f"  problem   {problem}")
    if not report.ok:
        raise typer.Exit(1)


def grid_command(
    job_id: JobArgument,
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    per_class: Annotated[
        int, typer.Option(parser=whole(1, 100), metavar="N", help="Images a row, 1 to 100.")
    ] = 10,
    store: Store = DEFAULT_STORE,
    endpoint_url: EndpointUrl = None,
    as_json: Json = False,
) -> None:
    """Write a contact sheet of a job as PNG: one row per class."""
    from cluster.storage.grid import grid
    from cluster.storage.open import open_store

    opened = open_store(store, endpoint_url=endpoint_url, probe=False)
    with progress("reading images", quiet=as_json):
        sheet = grid(opened, job_id, per_class=per_class)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(out, format="PNG")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another --out") from None
    if as_json:
        show_json(
            {"job_id": job_id, "path": str(out), "width": sheet.width, "height": sheet.height}
        )
    else:
        print(out)


def query_command(
    sql: Annotated[str, typer.Argument(help="DuckDB SQL over images, commits, jobs.")],
    store: Store = DEFAULT_STORE,
    endpoint_url: EndpointUrl = None,
    as_json: Json = False,
) -> None:
    """Query a store with SQL, for example: select label, count(*) from images group by all."""
    from rich.text import Text

    from cluster.ledger.sql import query
    from cluster.storage.open import open_store

    opened = open_store(store, endpoint_url=endpoint_url, probe=False)
    with progress("reading", quiet=as_json):
        rows = query(opened, sql)
    if as_json:
        show_json(rows.to_pylist())
        return
    table = plain_table(*rows.column_names, typed=("job_id",), indent=2)
    for row in rows.to_pylist():
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    show_table(table)


def _cell(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bytes):
        return f"<{len(value):,} bytes>"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_cell(part)}" for name, part in value.items())
    return str(value)


def compact_command(
    store: Store = DEFAULT_STORE,
    endpoint_url: EndpointUrl = None,
    single_writer: Annotated[
        bool,
        typer.Option(
            "--single-writer",
            help="Accept a server without conditional writes: one compaction at a time.",
        ),
    ] = False,
    sse: Sse = None,
    sse_kms_key: SseKmsKey = None,
    as_json: Json = False,
) -> None:
    """Merge the small files of past days in the energy log, to keep reports fast."""
    from cluster.clock import utc_now
    from cluster.ledger.compaction import compact
    from cluster.storage.open import open_store

    opened = open_store(
        store,
        endpoint_url=endpoint_url,
        single_writer=single_writer,
        sse=sse,
        sse_kms_key=sse_kms_key,
    )
    made = []
    with progress("reading the energy log", quiet=as_json) as step:
        for day, one in compact(opened, utc_now().date(), on_day=step):
            made.append({
                "day": day.isoformat(),
                "key": one.key,
                "files": len(one.sources),
                "rows": one.rows,
                "size_bytes": one.size_bytes,
            })  # fmt: skip
            if not as_json:
                files = f"{len(one.sources):,} files, {one.rows:,} rows"
                print(f"{day}: {files} -> {one.key}", flush=True)
    if as_json:
        show_json(made)
    elif not made:
        print("nothing to compact: days are merged once they are two days old")


dev = typer.Typer(
    help="Helpers for trying things out on one machine.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@dev.callback()
def _dev() -> None:
    """Helpers for trying things out on one machine."""


@dev.command("s3")
def dev_s3_command(
    directory: Annotated[
        Path, typer.Option("--dir", help="Where its data and credentials stay.")
    ] = Path("un0-data/s3"),
    port: Annotated[int | None, typer.Option(help="First of ten ports. Default: any free.")] = None,
) -> None:
    """Run a local S3 server (SeaweedFS, loopback only) until Ctrl-C. Prints how to use it."""
    from cluster.storage.dev_s3 import DevS3

    with DevS3(directory, port=port) as server:
        print("# In another shell:")
        for name, value in server.env().items():
            print(f"export {name}={value}")
        print(f"un0 generate --count 20000 --store {server.uri}/try", flush=True)
        server.wait()
