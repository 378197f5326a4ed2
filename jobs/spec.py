"""JobSpec: a job as the user describes it. Checked strictly, so that a job that starts can end."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticKnownError

from cluster.documents import parse, read_mapping
from cluster.errors import UserError
from cluster.scheduler.request import Objective
from cluster.types import Compression, ImageEncoding, Precision
from jobs.defaults import JOB_ID
from un0.quantities import parse_count, parse_deadline, parse_energy_j

MAX_COUNT = 2**40
_NOT_THE_JOBS = ("store", "endpoint_url", "single_writer", "replicas", "address")

ClassName = int | str
InputFormat = Literal["parquet", "csv", "jsonl"]
_HOW_CLASSES = "write a list such as [Sneaker, Bag], or weights such as {Sneaker: 3, Bag: 1}"


def split_classes(text: str) -> list[ClassName]:
    """The ids and names of ``Sneaker, Bag, 3``."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return [int(part) if re.fullmatch(r"-?[0-9]{1,9}", part) else part for part in parts]


def _read_classes(value: Any) -> Any:
    """A checked list of ids and names, or mapping from them to weights."""
    if isinstance(value, str):
        value = split_classes(value)
    if value is None:
        return None
    if not isinstance(value, list | dict):
        raise ValueError(f"not a list of classes; {_HOW_CLASSES}")
    if not value:
        raise ValueError("is empty; name at least one class, or leave it out for all")
    for name in value:
        if isinstance(name, bool) or not isinstance(name, int | str):
            raise ValueError(f"{name!r} is not a class; put names in quotes, '{name}'")
    for name, weight in value.items() if isinstance(value, dict) else ():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ValueError(f"class {name!r} has weight {weight!r}; write a bare number")
        if not 0 < weight < float("inf"):
            raise ValueError(f"class {name!r} has weight {weight}; weights must be > 0")
    return value


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("has a control character or line break; take it out")
    return value


Whole = Annotated[int, BeforeValidator(parse_count)]
WholeOrNone = Annotated[
    int | None, BeforeValidator(lambda value: None if value is None else parse_count(value))
]
Joules = Annotated[float, BeforeValidator(parse_energy_j)]
Deadline = Annotated[float | datetime, BeforeValidator(parse_deadline)]
Classes = Annotated[list[ClassName] | dict[ClassName, float], BeforeValidator(_read_classes)]


class InputsSpec(BaseModel):
    """Where the rows of a job are, one of each image.

    source: a path, ``s3://…``, or ``store:KEY`` for an object of the job's store. format: None is
    by the source's name. class_ (``class`` in files), seed, custom_id: the columns that hold them;
    by default ``class`` or else ``label``, ``seed`` and ``custom_id``, as far as there are such.
    strict: refuse the job if any row is bad, rather than leave it out.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, populate_by_name=True, serialize_by_alias=True
    )

    source: str = Field(min_length=1)
    format: InputFormat | None = None
    class_: str | None = Field(default=None, alias="class", min_length=1)
    seed: str | None = Field(default=None, min_length=1)
    custom_id: str | None = Field(default=None, min_length=1)
    strict: bool = False


def _read_inputs(value: Any) -> Any:
    """A bare text is the source."""
    return {"source": value} if isinstance(value, str) else value


class JobSpec(BaseModel):
    """A bulk generation job. Version 1.

    model: a name from ``un0 models`` or the path of a checkpoint; None is the bundled model.
    inputs: explicit rows, an image each; then their classes, and their number, are the job's.
    count: images; needed unless there are inputs. seed: 0..2**64-1; image i depends on (model,
        seed, i, its class) only.
    classes: class ids or names dealt out in turn, or a mapping from them to weights; None is all.
    deadline: seconds, or for example ``2h30m``, from submission, or a time with its zone such as
        ``2026-12-01T00:00Z``. The scheduler plans for it with the fewest joules, and a miss is
        reported.
    on_deadline: whether a job of the service goes on when its deadline passes, or stops: then it is
        ``expired``, with what is committed.
    priority: -100..100; higher goes first. objective: what the scheduler minimises: joules, the
        risk of lateness, time, money or grams of CO2e; it never changes an image.
    energy_budget: joules, or for example ``2 kJ``; the job pauses before it exceeds it.
    compression: of files of raw images, which no other encoding has; None is zstd.
    shard_images: images per commit; None lets ``jobs.shard_grid`` choose.
    owner, labels: recorded with the job, to report energy by.
    Numbers may be text too, such as ``250k``: docs/reference/job-spec.md lists every accepted form.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    version: Literal[1] = 1
    model: str | None = Field(default=None, min_length=1)
    inputs: Annotated[InputsSpec, BeforeValidator(_read_inputs)] | None = None
    count: WholeOrNone = Field(default=None, validate_default=True, ge=1, le=MAX_COUNT)
    seed: Whole = Field(default=0, ge=0, lt=2**64)
    classes: Classes | None = None
    precision: Precision = "fp32"
    encoding: ImageEncoding = "png"
    compression: Compression | None = None
    shard_images: Annotated[Whole, Field(ge=1, le=MAX_COUNT)] | None = None
    deadline: Deadline | None = None
    on_deadline: Literal["continue", "stop"] = "continue"
    priority: Whole = Field(default=0, ge=-100, le=100)
    objective: Objective = "energy"
    energy_budget: Joules | None = None
    job_id: str | None = None
    owner: str | None = Field(default=None, min_length=1)
    labels: dict[str, str] = Field(default_factory=dict)

    @field_validator("count")
    @classmethod
    def _count_or_inputs(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is None and info.data.get("inputs", 0) is None:
            raise PydanticKnownError("missing")
        return value

    @field_validator("classes")
    @classmethod
    def _rows_have_classes(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and info.data.get("inputs") is not None:
            raise ValueError("the rows of inputs say which classes; leave it out")
        return value

    @field_validator("compression")
    @classmethod
    def _only_raw_is_compressed(cls, value: str | None, info: ValidationInfo) -> str | None:
        encoding = info.data.get("encoding", "raw")
        if value is not None and encoding != "raw":
            raise ValueError(
                f"{encoding} images are compressed already; leave it out, or set encoding: raw"
            )
        return value

    @field_validator("on_deadline")
    @classmethod
    def _stop_needs_a_deadline(cls, value: str, info: ValidationInfo) -> str:
        if value == "stop" and info.data.get("deadline", 0) is None:
            raise ValueError("there is no deadline to stop at; give a deadline, or leave it out")
        return value

    @field_validator("job_id")
    @classmethod
    def _job_id_is_a_key(cls, value: str | None) -> str | None:
        if value is not None and not JOB_ID.fullmatch(value):
            raise ValueError(
                "use 1 to 128 letters, digits, '.', '_' or '-', the first a letter or digit"
            )
        return value

    @field_validator("owner")
    @classmethod
    def _owner_in_a_line(cls, value: str | None) -> str | None:
        return None if value is None else _printable(value)

    @field_validator("labels", mode="after")
    @classmethod
    def _labels_in_a_line(cls, value: dict[str, str]) -> dict[str, str]:
        if "" in value:
            raise ValueError("a label has no name; write for example team: vision")
        return {_printable(name): _printable(text) for name, text in value.items()}

    def due_from(self, submitted_at: datetime) -> JobSpec:
        """The same with its deadline in seconds from submission. Raises UserError if it is past."""
        if not isinstance(self.deadline, datetime):
            return self
        left_s = (self.deadline - submitted_at).total_seconds()
        if left_s <= 0:
            raise UserError(
                f"deadline {self.deadline:%Y-%m-%dT%H:%M:%SZ} is past: it is now "
                f"{submitted_at:%Y-%m-%dT%H:%M:%SZ}; give a later one"
            )
        return self.model_copy(update={"deadline": left_s})


def parse_spec(data: dict[str, Any], source: str = "job spec") -> JobSpec:
    """The spec of this mapping. Raises UserError naming every bad field, its value and the fix."""
    for name in _NOT_THE_JOBS:
        if name in data:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{source}: {name} is not of the job but of the run; give it as {flag}")
    return parse(JobSpec, data, source)


def load_spec(path: Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file, unchecked; '-' is standard input. Raises UserError."""
    return read_mapping(path, "job spec", "count: 1000")
