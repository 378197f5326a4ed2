"""``un0 explain``: the scheduler's decisions about a job, and the reasons."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.errors import UserError
from jobs.cli.options import (
    EndpointUrl,
    JobArgument,
    Json,
    Store,
    plain_table,
    show_json,
    show_table,
)
from jobs.defaults import DEFAULT_STORE
from jobs.format import UNKNOWN, bounded, duration, joules, quality_words

if TYPE_CHECKING:
    from cluster.storage.decisions import RivalRecord
    from jobs.explanation import (
        Event,
        HardwareFacts,
        JobExplanation,
        Measured,
        Predicted,
        ShardExplanation,
    )

_NONE = (
    "The store has no decisions about this job: it ran before the scheduler kept them, or the "
    "store was away."
)


def explain_command(
    job_id: JobArgument,
    shard: Annotated[
        int | None, typer.Option(min=0, help="Only this shard: its leases and their rivals.")
    ] = None,
    store: Store = DEFAULT_STORE,
    endpoint_url: EndpointUrl = None,
    as_json: Json = False,
) -> None:
    """Show why a job ran where it did: predictions, alternatives and what was measured."""
    from cluster.errors import NotFound
    from cluster.storage.commit import read_record
    from cluster.storage.commits import open_commits
    from cluster.storage.decisions import read_decisions
    from cluster.storage.open import open_store
    from cluster.storage.summaries import load_job
    from jobs.explain import explain_job, explain_shard

    opened = open_store(store, endpoint_url=endpoint_url, probe=False)
    record = load_job(opened, job_id)
    if shard is not None and shard >= record.workload.num_shards:
        raise UserError(
            f"--shard {shard}: job {job_id} has shards 0 to {record.workload.num_shards - 1}"
        )
    decisions = read_decisions(opened, job_id)
    if shard is None:
        commits = open_commits(opened, job_id, shards=record.workload.num_shards)
        job = explain_job(record, decisions, commits)
        show_json(job.model_dump(mode="json")) if as_json else _show_job(job)
        return
    try:
        commit = read_record(opened, job_id, shard)
    except NotFound:
        commit = None
    facts = explain_shard(record, decisions, commit, shard)
    show_json(facts.model_dump(mode="json")) if as_json else _show_shard(facts)


def _show_job(facts: JobExplanation) -> None:
    wishes = [f"minimises {facts.objective}"]
    if facts.deadline_s is not None:
        wishes.append(f"deadline {duration(facts.deadline_s)} from submission")
    if facts.energy_budget_j is not None:
        wishes.append(f"at most {joules(facts.energy_budget_j)}")
    if facts.priority:
        wishes.append(f"priority {facts.priority}")
    print(f"Job {facts.job_id}: {facts.images:,} images of {facts.model}")
    print(f"  {', '.join(wishes)}")
    print(f"  {facts.committed_shards:,} of {facts.shards:,} shards are committed")
    if not facts.decisions:
        print(_NONE)
        return
    runs, plans = _count(facts.runs, "run"), _count(facts.plans, "plan")
    print(f"\nThe scheduler made {plans} in {runs} of this job.")
    if facts.last_plan:
        last = facts.last_plan
        print(f"The last one, of {_time(last.at)}: {last.why}. What it believed:")
        _show_rivals(last.rivals, facts.cost_unit)
    if facts.events:
        print("\nWhat it did beside handing out shards:")
        for event in facts.events:
            print(f"  {_sentence(event)}")
    print("\nWhat leases were believed to take, and what their shards took:")
    _show_hardware(facts.hardware)


def _show_shard(facts: ShardExplanation) -> None:
    last = facts.stop - 1
    print(f"Shard {facts.shard} of job {facts.job_id}: images {facts.start:,} to {last:,}")
    if not facts.leases:
        print(_NONE)
    for assignment in facts.leases:
        predicted = assignment.predicted
        kind = {"lease": "Leased", "probe": "Leased as a probe", "speculate": "Leased once more"}
        print(
            f"\n{kind[assignment.kind]} at {_time(assignment.at)} "
            f"to {assignment.replica_id} "
            f"({assignment.hardware}): {assignment.why}."
        )
        print(
            f"  The lease is of shards {assignment.first} to {assignment.stop - 1}, "
            f"{predicted.images:,} images. It was believed to take "
            f"{_seconds(predicted.seconds)} and {joules(predicted.energy_j)}, "
            f"{joules(predicted.energy_per_image_j)} an image."
        )
        if assignment.rivals:
            print(f"  Plan {assignment.plan}, which it follows, believed:")
            _show_rivals(assignment.rivals, facts.cost_unit)
        else:
            print(f"  What plan {assignment.plan} believed of its rivals is not in the store.")
    for aside in facts.set_aside:
        print(f"\nSet aside at {_time(aside.at)}: {aside.why}.")
    measured = facts.measured
    if measured is None:
        print("\nIt is not committed.")
        return
    print(
        f"\nCommitted at {_time(measured.committed_at)} by {measured.hardware} on "
        f"{measured.host_name}. It took {_seconds(measured.seconds)} and "
        f"{_energy(measured)}, {joules(measured.energy_per_image_j)} an image."
    )


def _show_rivals(rivals: Sequence[RivalRecord], unit: str) -> None:
    from rich.text import Text

    table = plain_table(
        "  hardware",
        "an image, start-up included",
        "windows measured",
        "decided",
        typed=("  hardware",),
    )
    for rival in rivals:
        table.add_row(
            Text(f"  {rival.hardware}"),
            _cost(rival.cost, unit),
            str(rival.samples) if rival.samples else "none: a guess",
            Text(rival.verdict),
        )
    show_table(table)


def _show_hardware(rows: Sequence[HardwareFacts]) -> None:
    from rich.text import Text

    table = plain_table(
        "  hardware", "leases", "believed", "of", "took", "of", "known", typed=("  hardware",)
    )
    for row in rows:
        predicted, measured = row.predicted, row.measured
        table.add_row(
            Text(f"  {row.hardware}"),
            f"{row.leases:,}",
            *(_per_image(predicted) if predicted else ("-", "-")),
            *(_per_image(measured) if measured else ("-", "-")),
            quality_words(measured.quality) if measured else "-",
        )
    show_table(table)


def _per_image(figures: Predicted | Measured) -> tuple[str, str]:
    from jobs.explanation import Measured

    per_image, images = figures.energy_per_image_j, figures.images
    low, high = (figures.low_j, figures.high_j) if isinstance(figures, Measured) else (None, None)
    bounds = (None, None) if low is None or high is None else (low / images, high / images)
    return f"{bounded(per_image, *bounds)} an image", f"{images:,} images"


def _sentence(event: Event) -> str:
    done = {
        "hold": "Held the work",
        "wake": "Woke",
        "park": "Parked",
        "probe": "Probed",
        "speculate": "Ran a second attempt on",
        "set_aside": "Set shards aside",
        "pause": "Paused the job",
    }[event.kind]
    what = f" {event.hardware}" if event.hardware else ""
    who = f" ({', '.join(event.replicas[:5])}{' ...' * (len(event.replicas) > 5)})"
    where = who if event.replicas else ""
    if event.kind == "set_aside":
        where = f" ({', '.join(str(first) for first, _ in event.shards[:5])})"
    times = "once" if event.times == 1 else f"{event.times:,} times"
    return f"{done}{what}{where} {times}: {event.why}."


def _cost(cost: float | None, unit: str) -> str:
    if cost is None:
        return UNKNOWN
    return joules(cost) if unit == "J" else f"{cost:.3g} {unit}"


def _energy(measured: Measured) -> str:
    figure = bounded(measured.energy_j, measured.low_j, measured.high_j)
    return f"{figure} ({measured.quality.replace('_', ' ')} by {measured.method})"


def _seconds(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else duration(seconds)


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
