"""``un0 meters``: how this machine's energy is metered, and how to meter it better."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from jobs.cli.options import Json, plain_table, show_json, show_table
from jobs.format import quality_words

if TYPE_CHECKING:
    from cluster.metering.choice import Choice, MachineMeters, Refusal
    from cluster.metering.source import Source


def meters_command(as_json: Json = False) -> None:
    """List this machine's energy meters, and why better ones cannot be used."""
    from concurrent.futures import ThreadPoolExecutor

    from cluster.hardware.identify import host_name
    from cluster.metering.period import update_period_s
    from cluster.metering.select import choose_machine

    meters = choose_machine()
    try:
        with ThreadPoolExecutor(max(1, len(meters.choices))) as pool:
            periods_s = pool.map(update_period_s, [choice.source for choice in meters.choices])
        rows = [_row(choice, s) for choice, s in zip(meters.choices, periods_s, strict=True)]
    finally:
        meters.close()
    if as_json:
        notes = [_as_json(note) for note in meters.notes]
        show_json({"host_name": host_name(), "devices": rows, "notes": notes})
        return
    _show(meters, rows)


def _row(choice: Choice, period_s: float | None) -> dict[str, Any]:
    source: Source = choice.source
    device, reading = source.device, source.read()
    return {
        "hw_id": device.hw_id,
        "hw_type": device.hw_type,
        "hw_name": device.hw_name,
        "hw_parent": device.hw_parent,
        "zone": device.zone,
        "driver_version": device.driver_version,
        "power_limit_mw": device.power_limit_mw,
        "provider": source.provider,
        "quality": reading.quality,
        "method": reading.method,
        "update_period_s": period_s,
        "refused": [_as_json(refusal) for refusal in choice.refusals],
    }


def _show(meters: MachineMeters, rows: list[dict[str, Any]]) -> None:
    columns = ("device", "id", "zone", "provider", "quality", "updated every")
    table = plain_table(*columns, typed=("id", "provider"), indent=2)
    for row in rows:
        period_s = row["update_period_s"]
        table.add_row(
            row["hw_name"],
            row["hw_id"],
            row["zone"],
            row["provider"],
            quality_words(row["quality"]),
            "-" if period_s is None else f"{period_s * 1e3:.0f} ms",
        )
    show_table(table, give_way=("updated every", "zone", "quality"))
    lines: dict[str, None] = {}  # in order, and each once: eight GPUs are refused alike
    for choice in meters.choices:
        lines |= dict.fromkeys(_explain(refusal) for refusal in choice.refusals)
    lines |= dict.fromkeys(_explain(note) for note in meters.notes if note.device is None)
    _print("Why nothing better:", list(lines))
    _print("Left out:", [_explain(note) for note in meters.notes if note.device is not None])


def _print(title: str, lines: list[str]) -> None:
    if lines:
        print("\n".join(["", title, *lines]))


def _explain(refusal: Refusal) -> str:
    fix = f"\n    {refusal.fix}" if refusal.fix else ""
    return f"  {refusal.provider}: {refusal.reason}{fix}"


def _as_json(refusal: Refusal) -> dict[str, Any]:
    return asdict(refusal) | {"mend": refusal.fix}  # the key's earlier name, for scripts
