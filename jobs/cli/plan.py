"""``un0 plan``: capacity planning. Exit code 3 where no plan is possible."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli.exits import EXIT_INFEASIBLE
from jobs.cli.options import Json, plain_table, show_json, show_table, whole
from jobs.cli.progress import progress
from jobs.format import joules
from jobs.output import stray_output_aside

if TYPE_CHECKING:
    from cluster.optimise.capacity import Plan
    from jobs.plan.answer import PlanAnswer
    from jobs.plan.request import PlanRequest
    from jobs.plan.solve import Check

DEFAULT_DAYS = 20

plan_app = typer.Typer(
    name="plan",
    help="Plan capacity: what to keep, add and give up, when to run, and its joules and money.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
File = Annotated[Path, typer.Argument(help="A YAML or JSON file; - is standard input.")]
Days = Annotated[
    int,
    typer.Option(
        parser=whole(0), metavar="N", help="Simulated days that check the plan; 0 is none."
    ),
]
Samples = Annotated[
    int,
    typer.Option(
        parser=whole(0),
        metavar="N",
        help="Resamples of bounded figures: how stable the mix is; and mixes within 5 %.",
    ),
]


@plan_app.command("size")
def size_command(
    file: File, days: Days = DEFAULT_DAYS, samples: Samples = 0, as_json: Json = False
) -> None:
    """Which nodes to keep, add and give up."""
    from jobs.plan.solve import size

    with _planning(as_json):
        request = _request(file)
        answer = size(request, _check(days, samples))
    _show(answer, as_json)


@plan_app.command("fit")
def fit_command(file: File, days: Days = DEFAULT_DAYS, as_json: Json = False) -> None:
    """Whether the fleet that is there can meet the demand, and how much more."""
    from jobs.plan.solve import fit

    with _planning(as_json):
        answer = fit(_request(file), _check(days))
    _show(answer, as_json)


@plan_app.command("when")
def when_command(file: File, days: Days = DEFAULT_DAYS, as_json: Json = False) -> None:
    """Which hours to run, and at which sites, on the fleet that is there."""
    from jobs.plan.solve import when

    with _planning(as_json):
        answer = when(_request(file), _check(days))
    _show(answer, as_json, hours=True)


@plan_app.command("what-if")
def what_if_command(file: File, days: Days = DEFAULT_DAYS, as_json: Json = False) -> None:
    """The plan, and that of each of the file's scenarios beside it."""
    from jobs.plan.solve import what_if

    with _planning(as_json):
        answer = what_if(_request(file), _check(days))
    _show(answer, as_json)


@plan_app.command("frontier")
def frontier_command(
    file: File,
    against: Annotated[str, typer.Option(help="deadline, money or carbon.")] = "deadline",
    points: Annotated[
        int, typer.Option(parser=whole(2, 100), metavar="N", help="Of money or carbon.")
    ] = 5,
    days: Days = DEFAULT_DAYS,
    as_json: Json = False,
) -> None:
    """How the objective trades against deadlines, money or carbon."""
    from jobs.plan.solve import frontier

    with _planning(as_json):
        answer = frontier(_request(file), against, points, _check(days))
    _show(answer, as_json)


@plan_app.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of the file, for editors."""
    from jobs.plan.request import PlanRequest

    print(json.dumps(PlanRequest.model_json_schema(), indent=2))


@contextmanager
def _planning(quiet: bool) -> Iterator[None]:
    with progress("planning", quiet=quiet), stray_output_aside():
        yield


def _check(days: int, samples: int = 0) -> Check:
    """What completes the answer for a plan: simulated days, and what depends on uncertainty."""

    def complete(request: PlanRequest, plan: Plan, answer: PlanAnswer) -> PlanAnswer:
        from jobs.plan.check import checked
        from jobs.plan.uncertainty import near_optimal, stability

        if days:
            answer = checked(request, plan, answer, days)
        if samples:
            update = {
                "stability": stability(request, plan, samples),
                "near_optimal": near_optimal(request, plan),
            }
            answer = answer.model_copy(update=update)
        return answer

    return complete


def _request(file: Path) -> PlanRequest:
    from jobs.plan.request import load_request

    return load_request(file)


def _show(answer: PlanAnswer, as_json: bool, hours: bool = False) -> None:
    """Print the answer. Raises typer.Exit where there is no plan."""
    if as_json:
        show_json(answer.model_dump(mode="json"))
    else:
        _print(answer, hours)
    if not answer.feasible:
        raise typer.Exit(EXIT_INFEASIBLE)


def _print(answer: PlanAnswer, hours: bool = False) -> None:
    from jobs.plan.text import figures, first_to_know, headline, provenance_lines

    print(headline(answer))
    for line in first_to_know(answer):
        print(f"  {line}")
    if answer.feasible:
        for name, text in figures(answer).items():
            print(f"  {name:<10}{text}")
        _nodes(answer)
        _waterfall(answer)
        if hours:
            _hours(answer)
    elif answer.relaxations:
        print("Any one of these makes it feasible:")
        for relaxation in answer.relaxations:
            mix = ", ".join(f"{count} x {name}" for name, count in relaxation.mix.items())
            print(f"  {relaxation.text}: {mix}, {joules(relaxation.energy_j_per_day)} a day")
    for near in answer.near_optimal:
        mix = ", ".join(f"{count} x {name}" for name, count in near.mix.items())
        print(f"  {near.worse_by:+.2%}: {mix}")
    _frontier(answer)
    for scenario in answer.scenarios:
        print()
        _print(scenario)
    if answer.scenario is None:
        for line in provenance_lines(answer):
            print(f"  {line}")


def _nodes(answer: PlanAnswer) -> None:
    counts = ("start", "retire", "new", "end")
    table = plain_table("class", "site", "rack", *counts, typed=("class",), right=counts, indent=2)
    for nodes in answer.nodes:
        numbers = (str(getattr(nodes, count)) for count in counts)
        table.add_row(nodes.name, nodes.site, nodes.rack or "-", *numbers)
    show_table(table)


def _waterfall(answer: PlanAnswer) -> None:
    from jobs.plan.text import carbon, money

    columns = ("energy", "money", "carbon")
    table = plain_table("part of a day", *columns, right=columns, indent=2)
    for part in answer.waterfall:
        table.add_row(part.part, joules(part.energy_j), money(part.usd), carbon(part.carbon_g))
    show_table(table)


def _hours(answer: PlanAnswer) -> None:
    columns = ("hour", "awake", "busy", "power", "images")
    table = plain_table("class", "site", *columns, typed=("class",), right=columns, indent=2)
    for hour in answer.hours:
        table.add_row(
            hour.name,
            hour.site,
            str(hour.hour),
            f"{hour.awake_nodes:.2f}",
            f"{hour.busy_nodes:.2f}",
            f"{hour.power_w:,.0f} W",
            f"{sum(hour.images.values()):,.0f}",
        )
    show_table(table)


def _frontier(answer: PlanAnswer) -> None:
    from jobs.plan.text import carbon, money

    if not answer.frontier:
        return
    columns = ("energy", "money", "carbon")
    table = plain_table(answer.frontier[0].against, *columns, "mix", right=columns, indent=2)
    for point in answer.frontier:
        mix = ", ".join(f"{count} x {name}" for name, count in point.mix.items())
        table.add_row(
            f"{point.value:,.4g}",
            joules(point.energy_j_per_day),
            money(point.cost_per_day),
            carbon(point.carbon_g_per_day),
            mix if point.feasible else "infeasible",
        )
    show_table(table)
