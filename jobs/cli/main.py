"""The command ``un0``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cluster.errors import ClusterError, UserError
from jobs.cli.exits import EXIT_FAILED, EXIT_USAGE
from jobs.cli.lazy import Command, LazyGroup
from jobs.listening import finish, listening
from jobs.output import with_output
from un0.errors import Un0Error

RUN, READ, ENERGY = "Run jobs", "Read a store", "Energy and the fleet"
SERVICE = "Submit jobs, for servers to run"
MODELS, SERVERS, HELP = "Models", "Servers", "Help and trying out"

#: Every command. Its help is that of its function, by which a test holds it: to list commands must
#: not import them, since that takes seconds.
COMMANDS = (
    Command(
        "generate", "jobs.cli.generate:generate_command",
        "Generate images and commit them, with their joules, to a store.", RUN,
    ),
    Command(
        "resume", "jobs.cli.generate:resume_command",
        "Go on with a job that was stopped, killed or failed: only what is not committed runs.",
        RUN,
    ),
    Command(
        "serve", "jobs.cli.serve:serve_command",
        "Run the jobs that are submitted to a store, until it is stopped.", RUN,
    ),
    Command(
        "demo", "jobs.cli.demo:demo_command",
        "Generate 5,000 images with the bundled model, verify them, and draw a contact sheet.",
        RUN,
    ),
    Command(
        "submit", "jobs.cli.submit:submit_command",
        "Submit a job for servers to run, and return at once.", SERVICE,
    ),
    Command(
        "quote", "jobs.cli.quote:quote_command",
        "Say what a job would take: joules with bounds, seconds, money, carbon, and on what "
        "hardware.",
        SERVICE,
    ),
    Command(
        "status", "jobs.cli.status:status_command",
        "Show how a job stands: its state and why, progress, joules, predicted and measured.",
        SERVICE,
    ),
    Command(
        "watch", "jobs.cli.watch:watch_command",
        "Follow a job, or all that have not ended, live. Ctrl-C detaches: they go on.", SERVICE,
    ),
    Command(
        "cancel", "jobs.cli.status:cancel_command",
        "End a submitted job for good. What is committed stays.", SERVICE,
    ),
    Command(
        "pause", "jobs.cli.status:pause_command",
        "Stop running a submitted job, until `un0 resume`.", SERVICE,
    ),
    Command(
        "results", "jobs.cli.results:results_command",
        "Say where a job's images are, complete or not: addresses, or code that reads them.",
        SERVICE,
    ),
    Command(
        "logs", "jobs.cli.logs:logs_command",
        "Show what happened to a job and what the scheduler decided about it, in order of time.",
        SERVICE,
    ),
    Command(
        "jobs", "jobs.cli.jobs:jobs_command",
        "List the jobs of a store: state, progress, joules.", READ,
    ),
    Command(
        "verify", "jobs.cli.store:verify_command",
        "Check that a job has every image exactly once, intact and decodable. Exit 1 if not.",
        READ,
    ),
    Command(
        "grid", "jobs.cli.store:grid_command",
        "Write a contact sheet of a job as PNG: one row per class.", READ,
    ),
    Command(
        "query", "jobs.cli.store:query_command",
        "Query a store with SQL, for example: select label, count(*) from images group by all.",
        READ,
    ),
    Command(
        "explain", "jobs.cli.explain:explain_command",
        "Show why a job ran where it did: predictions, alternatives and what was measured.",
        READ,
    ),
    Command(
        "compact", "jobs.cli.store:compact_command",
        "Merge the small files of past days in the energy log, to keep reports fast.", READ,
    ),
    Command(
        "gc", "jobs.cli.gc:gc_command",
        "List what nobody needs any more in a store; delete it with --yes.", READ,
    ),
    Command(
        "report", "jobs.cli.report:report_command",
        "Report energy, carbon and cost, in total or by job, node, hardware, day and others.",
        ENERGY,
    ),
    Command(
        "fleet", "jobs.cli.fleet:fleet_app",
        "Show nodes, devices, their measured profiles, and what each replica does and why.", ENERGY,
    ),
    Command(
        "meters", "jobs.cli.meters:meters_command",
        "List this machine's energy meters, and why better ones cannot be used.", ENERGY,
    ),
    Command(
        "calibrate", "jobs.cli.calibrate:calibrate_command",
        "Measure this machine: images/s and J/image by batch, precision, encoding; load, idle.",
        ENERGY,
    ),
    Command(
        "bench", "jobs.cli.bench:bench_command",
        "Measure images/s and J/image of engines, by precision and batch, or of the whole path.",
        ENERGY,
    ),
    Command(
        "simulate", "jobs.cli.simulate:simulate_command",
        "Simulate a day of a fleet: energy, missed deadlines, and the least energy possible.",
        ENERGY,
    ),
    Command(
        "plan", "jobs.cli.plan:plan_app",
        "Plan capacity: what to keep, add and give up, when to run, and its joules and money.",
        ENERGY,
    ),
    Command(
        "models", "jobs.cli.models:models_command",
        "List the known models, and which of them are on this machine.", MODELS,
    ),
    Command(
        "export", "jobs.cli.models:export_command",
        "Write a model to one safetensors file that describes itself, from any readable "
        "checkpoint.",
        MODELS,
    ),
    Command(
        "train", "jobs.cli.train:train_command",
        "Train an Un-0 model on images with classes. Continue after an interrupt with --resume.",
        MODELS,
    ),
    Command(
        "evaluate", "jobs.cli.train:evaluate_command",
        "Evaluate a model. Each score is shown beside that of real images. No FID is computed.",
        MODELS,
    ),
    Command(
        "token", "jobs.cli.token:token",
        "Make, list and revoke tokens of the HTTP API.", SERVERS,
    ),
    Command(
        "doctor", "jobs.cli.doctor:doctor_command",
        "Check this machine and a store, within ten seconds. Exit 1 if a run could not work.",
        HELP,
    ),
    Command(
        "dev", "jobs.cli.store:dev",
        "Helpers for trying things out on one machine.", HELP,
    ),
    Command(
        "help", "jobs.cli.help:help_command",
        "Show the help of a command, or the list of commands.", HELP,
    ),
)  # fmt: skip


class _Commands(LazyGroup):
    table = COMMANDS


app = typer.Typer(
    name="un0",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich takes longer to load than all of the help's text to write
)

#: Packages whose versions a fault report needs.
VERSIONS_OF = ("un0-cluster", "torch", "ray", "pyarrow", "duckdb")


def _versions(wanted: bool) -> None:
    if not wanted:
        return
    import platform
    from importlib import metadata

    for package in VERSIONS_OF:
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            version = "not installed"
        print(package, version)
        if package == VERSIONS_OF[0]:
            print("python", platform.python_version())
    raise typer.Exit


@app.callback()
def _options(
    version: Annotated[  # its callback prints them
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=_versions,
            help="Show the versions of this and of what it runs on.",
        ),
    ] = False,
) -> None:
    """Bulk image generation with Un-0 at the lowest joules per image."""


def command() -> int:
    """Run the command line; its exit code. User errors are one message and 2, other failures 1."""
    return with_output(_run)


def _run() -> int:
    try:
        _check_working_directory()
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except (UserError, Un0Error) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except ClusterError as error:
        print(f"failed: {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def main() -> None:
    """Entry point of ``python -m jobs.cli.main``; that of ``un0`` is ``jobs.__main__``."""
    with listening(ends=True) as listener:
        finish(command(), listener.stop)


def _check_working_directory() -> None:
    """PyTorch, Ray and relative paths need one, and their own errors do not say so."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UserError(
            "the working directory no longer exists; cd to one that does, and try again"
        ) from None


if __name__ == "__main__":
    main()
