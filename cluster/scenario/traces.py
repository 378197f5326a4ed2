"""Requests of recorded traces: when each came, its relative amount of work, and its model.

The files are not part of this project. Layouts known by name:

azure-llm-2023: ``AzureLLMInferenceTrace_*.csv`` of Azure/AzurePublicDataset (CC BY), columns
TIMESTAMP, ContextTokens, GeneratedTokens. A request is as much work as it generates tokens.

alibaba-gentd26: ``lora_request_trace.csv`` of alibaba/clusterdata, cluster-trace-v2026-GenAI,
columns gmt_create, num_images_per_prompt, num_inference_steps, checkpoint_model_version_id and
predict_status, of which only SUCCEED is taken. Work is images times steps.

csv: any other, with its columns named.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat

from cluster.errors import UserError
from cluster.types import Record

Layout = Literal["azure-llm-2023", "alibaba-gentd26", "csv"]
Row = Mapping[str, str]


@dataclass(frozen=True)
class Request:
    """work: in one unit for all requests of a trace. model: as the trace calls it."""

    at_s: float
    work: float
    model: str = ""


class TraceSpec(Record):
    """A recorded trace. window_s: requests for one model within this time become one job.

    time_scale: stretches the trace; 24 makes an hour a day. columns: for layout ``csv``, the
    names of its columns ``at`` and, where it has them, ``work`` and ``model``.
    """

    kind: Layout
    path: Path
    window_s: PositiveFloat = 60.0
    time_scale: PositiveFloat = 1.0
    columns: dict[Literal["at", "work", "model"], str] = Field(default_factory=dict)


def read_trace(spec: TraceSpec) -> list[Request]:
    """The trace's requests in order of time, the first at 0 s. Raises UserError."""
    needed, read = _reader(spec)
    requests = []
    try:
        with spec.path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            lacking = [name for name in needed if name not in (rows.fieldnames or ())]
            if lacking:
                raise UserError(
                    f"trace {spec.path} has no column {', '.join(lacking)}; "
                    f"check that its layout is {spec.kind}"
                )
            for row in rows:
                try:
                    requests.append(read(row))
                except (ValueError, TypeError) as error:
                    raise UserError(
                        f"trace {spec.path}, line {rows.line_num}: {error}; fix or remove that line"
                    ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"trace {spec.path} cannot be read: {error}; check the path") from None
    found = sorted((r for r in requests if r is not None and r.work > 0), key=lambda r: r.at_s)
    if not found:
        raise UserError(f"trace {spec.path} has no request with any work; check its layout")
    start_s = found[0].at_s
    return [Request((r.at_s - start_s) * spec.time_scale, r.work, r.model) for r in found]


def in_windows(requests: Iterable[Request], window_s: float) -> list[Request]:
    """Merge the requests of each window and model into one, at the end of the window."""
    sums: dict[tuple[int, str], float] = {}
    for request in requests:
        key = int(request.at_s // window_s) + 1, request.model
        sums[key] = sums.get(key, 0.0) + request.work
    return [Request(at * window_s, work, model) for (at, model), work in sorted(sums.items())]


def _reader(spec: TraceSpec) -> tuple[list[str], Callable[[Row], Request | None]]:
    if spec.kind == "azure-llm-2023":
        return ["TIMESTAMP", "GeneratedTokens"], _azure
    if spec.kind == "alibaba-gentd26":
        return ["gmt_create", "num_images_per_prompt", "num_inference_steps"], _alibaba
    if "at" not in spec.columns:
        raise UserError(
            f"trace {spec.path} of layout csv lacks the names of its columns; "
            "write columns: {at: ..., work: ..., model: ...}"
        )
    at, work, model = (spec.columns.get(name) for name in ("at", "work", "model"))

    def read(row: Row) -> Request:
        return Request(
            _seconds(row[at or ""]), float(row[work]) if work else 1.0, row[model] if model else ""
        )

    return list(spec.columns.values()), read


def _azure(row: Row) -> Request:
    return Request(_seconds(row["TIMESTAMP"]), float(row["GeneratedTokens"]))


def _alibaba(row: Row) -> Request | None:
    if row.get("predict_status", "SUCCEED") != "SUCCEED":
        return None
    images, steps = (row[name] or "0" for name in ("num_images_per_prompt", "num_inference_steps"))
    model = row.get("checkpoint_model_version_id", "")
    return Request(_seconds(row["gmt_create"]), float(images) * float(steps), model)


def _seconds(text: str) -> float:
    """Seconds of a number, or of a date and time, which is taken for UTC."""
    try:
        return float(text)
    except ValueError:
        pass
    for read in (datetime.fromisoformat, lambda t: datetime.strptime(t, "%Y/%m/%d %H:%M")):
        try:
            return read(text.strip()).replace(tzinfo=UTC).timestamp()
        except ValueError:
            continue
    raise ValueError(f"{text!r} is neither seconds nor a date and time")
