"""``un0 fleet``: nodes, devices, their profiles, and what each replica is doing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.cli.options import (
    EndpointUrl,
    Json,
    Store,
    plain_table,
    quantity,
    show_json,
    show_table,
)
from jobs.defaults import DEFAULT_STORE
from jobs.format import bounded, duration, joules, quality_words
from un0.quantities import parse_duration_s, parse_power_w

if TYPE_CHECKING:
    from cluster.progress import FleetView
    from cluster.storage.object_store import StoreConfig
    from cluster.storage.profiles import PointRecord, ProfileRecord

_DAY_S = 86_400


fleet_app = typer.Typer(rich_markup_mode=None)
Cluster = Annotated[
    str | None, typer.Option("--address", help="Existing Ray cluster. Default: RAY_ADDRESS.")
]
OtherStore = Annotated[str | None, typer.Option("--store", help="The store of its jobs.")]
Within = Annotated[
    float | None,
    typer.Option(
        parser=quantity(parse_duration_s),
        metavar="TIME",
        help="Shards that would end later are run elsewhere: 90s, 2m. Default: all that have "
        "begun may end.",
    ),
]


@fleet_app.callback(invoke_without_command=True)
def fleet_command(
    context: typer.Context,
    address: Cluster = None,
    store: Store = DEFAULT_STORE,
    endpoint_url: EndpointUrl = None,
    as_json: Json = False,
) -> None:
    """Show nodes, devices, their measured profiles, and what each replica does and why."""
    if context.invoked_subcommand is not None:
        context.obj = {"address": address, "store": store, "endpoint_url": endpoint_url}
        return
    from pydantic import TypeAdapter

    from cluster.clock import utc_now
    from cluster.hardware.identify import host_name
    from cluster.storage.open import open_store
    from cluster.storage.profiles import load_profile_records

    opened = open_store(store, endpoint_url=endpoint_url, probe=False)
    profiles = load_profile_records(opened)
    view = _running_fleet(address, opened.config)
    devices = _devices_here() if view is None else None
    if as_json:
        known = [profile.model_dump(mode="json") for profile in profiles]
        here = None if devices is None else {"host_name": host_name(), "devices": devices}
        fleet = None if view is None else TypeAdapter(type(view)).dump_python(view, mode="json")
        show_json({"fleet": fleet, "here": here, "profiles": known})
        return
    if view is not None:
        _show_fleet(view)
    if devices is not None:
        _show_devices(devices)
    _show_profiles(profiles, store, utc_now())


@fleet_app.command("cap")
def cap_command(
    context: typer.Context,
    watts: Annotated[str, typer.Argument(metavar="WATTS|off", help="500W, 1.2kW, or off.")],
    address: Cluster = None,
    store: OtherStore = None,
    endpoint_url: EndpointUrl = None,
    as_json: Json = False,
) -> None:
    """Bound the power of a running fleet: replicas are parked until it is kept.

    It holds for as long as the fleet's coordinator runs, which is a minute longer than its jobs.
    """
    cap_w = None if watts.lower() == "off" else quantity(parse_power_w)(watts)
    where, config = _where(context, address, store, endpoint_url)
    from cluster.actors.launch import cap_fleet  # Ray takes a second to import

    cap_fleet(where, config, cap_w)
    if as_json:
        show_json({"cap_w": cap_w})
    else:
        print("The fleet has no cap." if cap_w is None else f"The fleet's cap is {cap_w:,.0f} W.")


@fleet_app.command("drain")
def drain_command(
    context: typer.Context,
    node: Annotated[str, typer.Argument(help="Its host name or id, as `un0 fleet` lists them.")],
    within: Within = None,
    address: Cluster = None,
    store: OtherStore = None,
    endpoint_url: EndpointUrl = None,
    as_json: Json = False,
) -> None:
    """Give a node of a running fleet no more work, before it is taken away."""
    where, config = _where(context, address, store, endpoint_url)
    from cluster.actors.launch import drain_node
    from cluster.progress import SHOWN_OF_ID

    drained = drain_node(where, config, node, within)
    if as_json:
        shown = {"node_id": drained.node_id, "host_name": drained.host_name, "within_s": within}
        show_json(shown)
        return
    print(f"Node {drained.host_name} ({drained.node_id[:SHOWN_OF_ID]}) gets no more work.")
    print("`un0 fleet` shows when its replicas are parked.")


def _where(
    context: typer.Context, address: str | None, store: str | None, endpoint_url: str | None
) -> tuple[str | None, StoreConfig]:
    """Address and store of the fleet: options may stand before the subcommand's name too."""
    from cluster.storage.open import open_store

    before = context.obj
    opened = open_store(
        store or before["store"], endpoint_url=endpoint_url or before["endpoint_url"], probe=False
    )
    return address or before["address"], opened.config


def _running_fleet(address: str | None, store: StoreConfig) -> FleetView | None:
    """The fleet as its coordinator sees it; None if no coordinator is running."""
    from cluster.actors.launch import fleet_view  # Ray takes a second to import

    return fleet_view(address, store)


def _devices_here() -> list[dict[str, Any]]:
    """This machine's devices, and how their energy is metered."""
    from cluster.metering.select import choose_machine

    meters = choose_machine()
    try:
        return [
            {
                "hw_id": choice.source.device.hw_id,
                "hw_type": choice.source.device.hw_type,
                "hw_name": choice.source.device.hw_name,
                "provider": choice.source.provider,
                "quality": choice.source.read().quality,
            }
            for choice in meters.choices
        ]
    finally:
        meters.close()


def _show_fleet(view: FleetView) -> None:
    from rich.text import Text

    from cluster.progress import SHOWN_OF_ID

    cap = "no cap" if view.cap_w is None else f"of at most {view.cap_w:,.0f} W"
    runs = [f"{job} (run {n})" if (n := view.epochs.get(job)) else job for job in view.jobs]
    jobs = f"running {', '.join(runs)}" if runs else "no job is running"
    print(f"Coordinator: {jobs}; up to {view.power_w:,.0f} W, {cap}")
    nodes = plain_table("node", "host", "devices", "labels", typed=("node",))
    for node in view.nodes:
        labels = ", ".join(f"{name}={value}" for name, value in sorted(node.labels.items()))
        devices = ", ".join(node.devices)
        nodes.add_row(
            Text(node.node_id[:SHOWN_OF_ID]), Text(node.host_name), Text(devices), Text(labels)
        )
    show_table(nodes, give_way=("labels", "devices", "host"))
    slots = plain_table(
        "replica", "host", "hardware", "state", "since", "leases", "up to", "model", "why",
        typed=("replica",),
    )  # fmt: skip
    for slot in sorted(view.seats, key=lambda slot: (slot.hardware, slot.replica_id)):
        slots.add_row(
            Text(slot.replica_id),
            Text(slot.host_name),
            Text(slot.hardware),
            Text(slot.state + (", draining" if slot.draining else "")),
            _age(slot.since_s),
            str(slot.leases),
            f"{slot.power_w:.0f} W",
            Text(_short(slot.model) if slot.model else "-"),
            Text(slot.why),
        )
    print()
    show_table(slots, give_way=("up to", "leases", "since", "model", "hardware", "host", "why"))


def _show_devices(devices: Sequence[dict[str, Any]]) -> None:
    from rich.text import Text

    print("No coordinator is running there. The devices of this machine:")
    table = plain_table("device", "id", "meter", "quality", typed=("id",))
    for device in devices:
        quality = quality_words(device["quality"])
        table.add_row(Text(device["hw_name"]), Text(device["hw_id"]), device["provider"], quality)
    show_table(table)


def _show_profiles(profiles: Sequence[ProfileRecord], store: str, now: datetime) -> None:
    from rich.text import Text

    from cluster.storage.profiles import PipelineRecord

    if not profiles:
        print(f"\nNothing is known of any hardware in {store} yet; `un0 calibrate --store {store}`")
        print("measures this machine, and every job measures what it runs on.")
        return
    print(f"\nWhat is known of hardware, in {store}:")
    table = plain_table(
        "hardware", "model", "encoding", "batch", "images/s", "an image", "quality", "windows",
        "measured", "idle", "loads in", "for", typed=("hardware", "model"),
    )  # fmt: skip
    for profile in profiles:
        for point in (*profile.curve, *profile.pipelines):
            table.add_row(
                Text(profile.hardware),
                Text(_short(profile.model)),
                point.key if isinstance(point, PipelineRecord) else "-",
                _point(point),
                f"{point.images_per_s:,.0f}",
                bounded(point.power_w / point.images_per_s, point.low_j, point.high_j),
                quality_words(point.quality),
                str(point.samples),
                _measured(point, now),
                f"{profile.idle_w:.3g} W",
                duration(profile.load_s),
                joules(profile.load_j),
            )
    show_table(
        table, give_way=("for", "loads in", "idle", "windows", "batch", "quality", "measured")
    )


def _point(point: PointRecord) -> str:
    cap = "" if point.power_cap_w is None else f" at {point.power_cap_w:.0f} W"
    return f"{point.batch_size}{cap}"


def _measured(point: PointRecord, now: datetime) -> str:
    if point.measured_at is None:
        return "never: a guess"
    return f"{_age((now - point.measured_at).total_seconds())} ago"


def _age(seconds: float) -> str:
    if seconds < 2 * _DAY_S:
        return duration(max(0.0, seconds))
    return f"{seconds / _DAY_S:.0f} days"


def _short(model: str) -> str:
    """A model key with the beginning of its revision, which is a digest."""
    revision, slash, precision = model.rpartition("/")
    return f"{revision[:12]}{slash}{precision}"
