"""``un0 demo``: a small job from start to end: generate, verify, contact sheet."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path

import typer

from cluster.errors import UserError
from jobs.cli.exits import EXIT_FAILED
from jobs.cli.options import Store
from jobs.cli.progress import progress
from jobs.defaults import DEFAULT_STORE

COUNT = 5000


def demo_command(store: Store = DEFAULT_STORE) -> None:
    """Generate 5,000 images with the bundled model, verify them, and draw a contact sheet."""
    from cluster.storage.grid import grid
    from cluster.storage.layout import JobLayout
    from cluster.storage.open import open_store
    from cluster.storage.verify import verify
    from jobs.cli.run import run_and_report
    from jobs.service.foreground import generate
    from jobs.spec import JobSpec

    result = run_and_report(
        partial(generate, JobSpec(count=COUNT)), {"store": store}, as_json=False
    )
    opened = open_store(store, probe=False)
    with progress("verifying") as on_shard:
        report = verify(opened, result.job_id, on_shard=on_shard)
    print(f"  verified  {'ok' if report.ok else 'NOT OK'}, {report.images:,} images are right")
    if not report.ok:
        print("\n".join(report.problems))
        raise typer.Exit(EXIT_FAILED)
    picture = Path.cwd() if "://" in store else Path(store)
    picture = (picture / f"{result.job_id}.png").resolve()
    try:
        grid(opened, result.job_id).save(picture)
    except OSError as error:
        why = f"cannot write {picture}: {error.strerror}; choose another --store"
        raise UserError(why) from None
    files = f"{JobLayout(result.job_id).attempts}*/*/images.parquet"
    here = "" if store == DEFAULT_STORE else f" --store {shlex.quote(store)}"
    print(
        f"  parquet   {opened.config.uri.removeprefix('file://')}/{files}\n"
        f"  picture   {picture}\n"
        "\n"
        "Try next:\n"
        f"  .venv/bin/un0 jobs{here}\n"
        '  .venv/bin/un0 query "select label, count(*) images, sum(energy_j) joules '
        f'from images group by label order by label"{here}\n'
        f"  .venv/bin/un0 report{here}\n"
        f"  .venv/bin/un0 generate --count 20000 --classes Sneaker,Bag --seed 7{here}\n"
        "  .venv/bin/un0 models"
    )
