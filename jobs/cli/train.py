"""Commands that train and evaluate models."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.options import Json, show_json, show_table, whole
from jobs.cli.progress import progress

# (score, its value for real images or its floor, which way is better)
SCORES = (
    ("accuracy", "real_accuracy", "higher"),
    ("cnn_frechet", "cnn_frechet_floor", "lower"),
    ("precision", None, "higher"),
    ("recall", None, "higher"),
    ("density", None, "higher"),
    ("coverage", None, "higher"),
    ("shattered_share", None, "lower"),
    ("memorisation", None, "near 1; well below means copies"),
    ("sharpness", "real_sharpness", "near real"),
    ("diversity", "real_diversity", "near real"),
    ("spread", "real_spread", "near real"),
)


def train_command(
    recipe: Annotated[str, typer.Argument(help="YAML file, or a bundled recipe's name.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    data: Annotated[
        str | None, typer.Option(help="Directory of IDX files or class folders, or hub:OWNER/NAME.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from OUT.run.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda. Default: a GPU if any.")] = None,
    as_json: Json = False,
) -> None:
    """Train an Un-0 model on images with classes. Continue after an interrupt with --resume."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from un0.train import run
    from un0.train.runner import Progress as Step

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    last: list[Step] = []
    with Progress(*columns, console=console, disable=as_json) as bar:
        task = bar.add_task("preparing", total=None)

        def show(step: Step) -> None:
            last[:] = [step]
            bar.update(
                task,
                total=step.steps,
                completed=step.step,
                description=f"step {step.step:,} of {step.steps:,}, loss {step.loss:.4g}",
            )
            if not console.is_terminal and not as_json:
                print(f"step {step.step} of {step.steps}  loss {step.loss:.4g}", flush=True)

        written = run(recipe, data, out=out, resume=resume, device=device, progress=show)
    if as_json:
        show_json({"model": str(written), **(asdict(last[0]) if last else {})})
        return
    print(
        f"{written}\nNext: un0 evaluate {written} --data DIR; un0 generate {written} --count 1000"
    )


def evaluate_command(
    model: Annotated[str, typer.Argument(help="Name from `un0 models`, or a file.")],
    data: Annotated[str, typer.Option(help="What it was trained on: as for `un0 train`.")],
    count: Annotated[
        int | None,
        typer.Option(
            parser=whole(100),
            metavar="N",
            help="Samples, from 100. Default: as many as tests.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(parser=whole(0), metavar="N")] = 0,
    as_json: Json = False,
) -> None:
    """Evaluate a model. Each score is shown beside that of real images. No FID is computed."""
    from rich.table import Table

    with progress("loading", quiet=as_json) as step:
        from un0.train import evaluate_model  # PyTorch takes seconds to import

        step(what=f"judging {model}")
        scores = asdict(evaluate_model(model, data, count=count, seed=seed))
    if as_json:
        show_json(scores)
        return
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("score", model, "real images", "better"):
        table.add_column(column)
    for name, real, better in SCORES:
        table.add_row(
            name.replace("_", "-"),
            f"{scores[name]:.4g}",
            f"{scores[real]:.4g}" if real else "-",
            better,
        )
    show_table(table)
    if scores["collapsed"]:
        print("COLLAPSED: the samples span too little for the other scores to mean anything.")
