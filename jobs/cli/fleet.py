"""``un0 fleet``: nodes, devices, their profiles, and what each replica is doing."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import typer
from rich.text import Text

from cluster.clock import utc_now
from cluster.metering.select import choose_machine
from cluster.progress import FleetView
from cluster.storage.object_store import StoreConfig
from cluster.storage.open import open_store
from cluster.storage.profiles import PointRecord, ProfileRecord, load_profile_records
from jobs.cli.options import Address, EndpointUrl, Json, Store, plain_table, show_json, show_table
from jobs.format import bounded, duration, joules
from jobs.service import DEFAULT_STORE

_DAY_S = 86_400


def add_to(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command("fleet")(fleet_command)


def fleet_command(
    address: Address = None,
    store: Store = DEFAULT_STORE,
    endpoint_url: EndpointUrl = None,
    as_json: Json = False,
) -> None:
    """Show nodes, devices, their measured profiles, and what each replica does and why."""
    opened = open_store(store, endpoint_url=endpoint_url, probe=False)
    profiles = load_profile_records(opened)
    view = _running_fleet(address, opened.config)
    devices = _devices_here() if view is None else None
    if as_json:
        known = [profile.model_dump(mode="json") for profile in profiles]
        here = None if devices is None else {"host_name": socket.gethostname(), "devices": devices}
        show_json({"fleet": asdict(view) if view else None, "here": here, "profiles": known})
        return
    if view is not None:
        _show_fleet(view)
    if devices is not None:
        _show_devices(devices)
    _show_profiles(profiles, store, utc_now())


def _running_fleet(address: str | None, store: StoreConfig) -> FleetView | None:
    """The fleet as its coordinator sees it; None if no coordinator is running."""
    from cluster.actors.launch import fleet_view  # Ray takes a second to import

    return fleet_view(address, store)


def _devices_here() -> list[dict[str, Any]]:
    """This machine's devices, and how their energy is metered."""
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
    cap = "no cap" if view.cap_w is None else f"of at most {view.cap_w:,.0f} W"
    jobs = f"running {', '.join(view.jobs)}" if view.jobs else "no job is running"
    print(f"Coordinator {view.epoch}: {jobs}; up to {view.power_w:,.0f} W, {cap}")
    nodes = plain_table("node", "host", "devices", "labels", typed=("node",))
    for node in view.nodes:
        labels = ", ".join(f"{name}={value}" for name, value in sorted(node.labels.items()))
        devices = ", ".join(node.devices)
        nodes.add_row(Text(node.node_id[:12]), Text(node.host_name), Text(devices), Text(labels))
    show_table(nodes, give_way=("labels", "devices", "host"))
    seats = plain_table(
        "replica", "host", "hardware", "state", "since", "leases", "up to", "model", "why",
        typed=("replica",),
    )  # fmt: skip
    for seat in sorted(view.seats, key=lambda seat: (seat.hardware, seat.replica_id)):
        seats.add_row(
            Text(seat.replica_id),
            Text(seat.host_name),
            Text(seat.hardware),
            Text(seat.state + (", draining" if seat.draining else "")),
            _age(seat.since_s),
            str(seat.leases),
            f"{seat.power_w:.0f} W",
            Text(_short(seat.model) if seat.model else "-"),
            Text(seat.why),
        )
    print()
    show_table(seats, give_way=("up to", "leases", "since", "model", "hardware", "host", "why"))


def _show_devices(devices: Sequence[dict[str, Any]]) -> None:
    print("No coordinator is running there. The devices of this machine:")
    table = plain_table("device", "id", "meter", "quality", typed=("id",))
    for device in devices:
        quality = device["quality"].replace("_", " ")
        table.add_row(Text(device["hw_name"]), Text(device["hw_id"]), device["provider"], quality)
    show_table(table)


def _show_profiles(profiles: Sequence[ProfileRecord], store: str, now: datetime) -> None:
    if not profiles:
        print(f"\nNothing is known of any hardware in {store} yet; `un0 calibrate --store {store}`")
        print("measures this machine, and every job measures what it runs on.")
        return
    print(f"\nWhat is known of hardware, in {store}:")
    table = plain_table(
        "hardware", "model", "batch", "images/s", "an image", "quality", "windows", "measured",
        "idle", "loads in", "for", typed=("hardware", "model"),
    )  # fmt: skip
    for profile in profiles:
        for point in profile.curve:
            table.add_row(
                Text(profile.hardware),
                Text(_short(profile.model)),
                _point(point),
                f"{point.images_per_s:,.0f}",
                bounded(point.power_w / point.images_per_s, point.low_j, point.high_j),
                point.quality.replace("_", " "),
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
