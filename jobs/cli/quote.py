"""``un0 quote``: what a job would take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.cli.asking import StoreArguments, images_words, quote_words, service_of
from jobs.cli.job_options import (
    Classes,
    Compression,
    Count,
    Deadline,
    Encoding,
    EnergyBudget,
    Inputs,
    Label,
    Model,
    Objective,
    OnDeadline,
    Owner,
    Precision,
    Priority,
    Seed,
    ShardImages,
    Spec,
    Strict,
    read_job,
)
from jobs.cli.options import (
    EndpointUrl,
    Json,
    Store,
    plain_table,
    show_json,
    show_notes,
    show_table,
)
from jobs.defaults import DEFAULT_STORE
from jobs.format import duration, joules, quality_words

if TYPE_CHECKING:
    from jobs.service.views import Quote
    from jobs.spec import JobSpec


def quote_command(
    model: Model = None,
    count: Count = None,
    inputs: Inputs = None,
    strict: Strict = False,
    classes: Classes = None,
    seed: Seed = None,
    store: Store = DEFAULT_STORE,
    precision: Precision = None,
    encoding: Encoding = None,
    compression: Compression = None,
    shard_images: ShardImages = None,
    deadline: Deadline = None,
    on_deadline: OnDeadline = None,
    priority: Priority = None,
    objective: Objective = None,
    energy_budget: EnergyBudget = None,
    owner: Owner = None,
    label: Label = None,
    spec: Spec = None,
    endpoint_url: EndpointUrl = None,
    as_json: Json = False,
) -> None:
    """Say what a job would take: joules with bounds, seconds, money, carbon, and on what hardware.

    By what the store's fleets have measured, and the jobs that go before it. Writes nothing.
    """
    parsed = read_job(
        spec,
        label,
        model=model,
        count=count,
        inputs=inputs,
        strict=strict,
        classes=classes,
        seed=seed,
        precision=precision,
        encoding=encoding,
        compression=compression,
        shard_images=shard_images,
        deadline=deadline,
        on_deadline=on_deadline,
        priority=priority,
        objective=objective,
        energy_budget=energy_budget,
        owner=owner,
    )
    quote = service_of(StoreArguments(store, endpoint_url)).quote(parsed)
    if as_json:
        show_json(quote.model_dump(mode="json"))
    else:
        _show(quote, parsed)


def _show(quote: Quote, spec: JobSpec) -> None:
    print(f"{images_words(spec)}: {quote_words(quote)}")
    if quote.queue_seconds:
        print(f"  of that   {duration(quote.queue_seconds)} until its turn")
    if quote.cost is not None:
        print(f"  cost      {quote.cost:.3g} of the profiles' currency")
    if quote.carbon_g is not None:
        print(f"  carbon    {quote.carbon_g:.3g} gCO2e")
    if quote.basis:
        table = plain_table(
            "hardware", "images", "images/s", "J/image", "known", "windows", "measured (UTC)",
            typed=("hardware",), right=("images", "images/s", "windows"), indent=2,
        )  # fmt: skip
        for basis in quote.basis:
            at = basis.measured_at
            table.add_row(
                basis.hardware,
                f"{quote.images_per_hardware.get(basis.hardware, 0):,}",
                f"{basis.images_per_s:,.0f}",
                joules(basis.energy_per_image_j),
                quality_words(basis.quality),
                f"{basis.samples:,}",
                "-" if at is None else f"{at:%Y-%m-%d %H:%M}",
            )
        show_table(table, give_way=("measured (UTC)", "windows", "known"))
    show_notes(quote.notes)
