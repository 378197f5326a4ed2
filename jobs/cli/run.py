"""What ``generate``, ``resume`` and ``demo`` share: run with a display, and end as the job did."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import typer
from rich.console import Console

from cluster.states import JobState
from cluster.types import JobRecord
from jobs.cli.exits import EXIT_FAILED
from jobs.cli.live import Follower
from jobs.cli.options import show_json
from jobs.defaults import DEFAULT_STORE
from jobs.format import UNKNOWN, bounded, duration, quality_words
from jobs.listening import EXIT_INTERRUPTED, if_cut_short
from jobs.result import JobResult

MOST_LACKING = 5  # shards that are named
#: The last two: left to a shared cluster.
ON_REQUEST = (JobState.STOPPED, JobState.STARTING, JobState.RUNNING)


def run_and_report(
    start: Callable[..., JobResult], where: dict[str, Any], as_json: bool
) -> JobResult:
    """Call ``start(**where, on_job=, on_snapshot=)`` and show its progress.

    where: store, endpoint_url, single_writer, sse, sse_kms_key, replicas and address. Raises
    typer.Exit, with the way to go on, unless the job is complete.
    """
    jobs: list[JobRecord] = []

    def hint() -> str:
        if not jobs:
            return "Nothing was written yet: run the command again."
        return f"What is committed stays. Continue with: {resume_command(jobs[0], where)}"

    follower = Follower(Console(stderr=True, highlight=False), quiet=as_json)

    def on_job(record: JobRecord) -> None:
        jobs.append(record)
        if_cut_short(hint())
        follower.on_job(record)

    try:
        with redirect_stdout(sys.stderr), follower:  # Ray may print there; our output is one thing
            result = start(**where, on_job=on_job, on_snapshot=follower.on_snapshot)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        print(hint(), file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if result.deadline_missed:
        print("The deadline was missed.", file=sys.stderr)
    if result.state != JobState.COMPLETED:
        print(hint(), file=sys.stderr)
    if as_json:
        show_json(result.as_dict())
    else:
        print(summary(result))
    if result.state != JobState.COMPLETED:
        raise typer.Exit(EXIT_INTERRUPTED if result.state in ON_REQUEST else EXIT_FAILED)
    return result


def resume_command(record: JobRecord, where: dict[str, Any]) -> str:
    """The command that resumes the job, ready to paste."""
    words = ["un0", "resume", record.workload.job_id]
    if where["store"] != DEFAULT_STORE:
        words += ["--store", where["store"]]
    for name in ("endpoint_url", "sse", "sse_kms_key", "address"):
        if where.get(name):
            words += [f"--{name.replace('_', '-')}", where[name]]
    if where.get("single_writer"):
        words.append("--single-writer")
    return shlex.join(words)


def summary(result: JobResult) -> str:
    """The summary at the end of a run, for people."""
    figures = (result.energy_j, result.energy_low_j, result.energy_high_j)
    per_image = [None if value is None else value / max(result.images, 1) for value in figures]
    overhead = (result.overhead_j, result.overhead_low_j, result.overhead_high_j)
    lines = [f"Job {result.job_id} {result.state}: {result.images:,} images in the store"]
    if result.images_per_s is not None:
        lines.append(
            f"  rate      {result.images_per_s:,.0f} images/s over {duration(result.seconds)}, "
            f"after {duration(result.startup_s)} of start-up"
        )
    if result.stage_share is not None:
        busy = ", ".join(f"{stage} {share:.1%}" for stage, share in result.stage_share.items())
        lines.append(f"  stages    busy: {busy}; the bottleneck is {result.bottleneck}")
    if result.energy_j is None:
        lines.append(f"  energy    {UNKNOWN}")
    else:
        lines += [
            f"  energy    {bounded(*per_image)} per image, {bounded(*figures)} in all",
            f"            {quality_words(result.energy_quality)} by {result.energy_method}",
        ]
    if result.overhead_j:  # a run whose replicas were up already has none
        lines.append(
            f"  overhead  {bounded(*overhead)} for loading and warm-up, "
            f"{quality_words(result.overhead_quality)}"
        )
    lines.append(f"  store     {result.store}")
    if result.reason:
        lines.append(f"  reason    {result.reason}")
    lines += [f"  lacking   shard {s.shard}: {s.reason}" for s in result.set_aside[:MOST_LACKING]]
    if len(result.set_aside) > MOST_LACKING:
        lines.append(f"            and {len(result.set_aside) - MOST_LACKING} more")
    return "\n".join(lines)
