"""``un0 demo``: the main job, small, with everything a newcomer wants to see."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from cluster.storage.grid import grid
from cluster.storage.layout import JobLayout
from cluster.storage.open import open_store
from cluster.storage.verify import verify
from jobs.cli_options import Store
from jobs.display import follow
from jobs.render import summary
from jobs.service import DEFAULT_STORE, generate
from jobs.spec import JobSpec

COUNT = 5000


def demo_command(store: Store = DEFAULT_STORE) -> None:
    """Generate 5,000 images with the bundled model, verify them, and draw a contact sheet."""
    console = Console(stderr=True)
    with follow(console, None, quiet=False) as on_snapshot:
        result = generate(JobSpec(count=COUNT), store, on_snapshot=on_snapshot)
    print(summary(result))
    opened = open_store(store, probe=False)
    report = verify(opened, result.job_id)
    print(f"  verified  {'ok' if report.ok else 'NOT OK'}, {report.images:,} images are right")
    picture = Path(f"{result.job_id}.png" if "://" in store else f"{store}/{result.job_id}.png")
    grid(opened, result.job_id).save(picture)
    parquet = f"{store.rstrip('/')}/{JobLayout(result.job_id).attempts}*/*/images.parquet"
    print(f"  parquet   {parquet}")
    print(f"  picture   {picture.resolve()}")
    print(
        "\nTry next:\n"
        "  .venv/bin/un0 jobs\n"
        '  .venv/bin/un0 query "select label, count(*) images, sum(energy_j) joules '
        'from images group by label order by label"\n'
        "  .venv/bin/un0 generate --count 20000 --classes Sneaker,Bag --seed 7\n"
        "  .venv/bin/un0 models"
    )
