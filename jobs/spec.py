"""JobSpec: what a user asks for, checked so strictly that a job which starts can be finished."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
)

from cluster.documents import read_mapping
from cluster.errors import UserError
from cluster.scheduler.terms import Objective
from cluster.types import ImageEncoding, Precision

MAX_COUNT = 2**40
_DURATION = re.compile("".join(rf"(?:(\d+(?:\.\d+)?){unit})?" for unit in "dhms"))
_ENERGY = re.compile(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*([a-z]*)", re.IGNORECASE)
_JOULES = {"": 1.0, "j": 1.0, "kj": 1e3, "mj": 1e6, "wh": 3.6e3, "kwh": 3.6e6}
JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def parse_duration_s(value: Any) -> Any:
    """Seconds of ``90``, ``90s``, ``15m``, ``2h30m`` or ``1d``; anything else is an error."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    match = _DURATION.fullmatch(text)
    if match and any(match.groups()):
        days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    try:
        return float(text)
    except ValueError:
        raise ValueError(
            "not a duration; write seconds, or for example 90s, 15m, 2h30m, 1d"
        ) from None


def parse_energy_j(value: Any) -> Any:
    """Joules of ``500``, ``500 J``, ``2 kJ``, ``3 MJ``, ``20 Wh`` or ``1.5 kWh``; anything else is
    an error. ``mJ`` is refused: nobody budgets millijoules, and MJ is one key away."""
    if not isinstance(value, str):
        return value
    match = _ENERGY.fullmatch(value.strip())
    unit = match[2] if match else "?"
    if match is None or unit.lower() not in _JOULES or unit == "mJ":
        raise ValueError("not an energy; write joules, or for example 500 J, 2 kJ, 1.5 kWh")
    return float(match[1]) * _JOULES[unit.lower()]


Joules = Annotated[float, BeforeValidator(parse_energy_j), Field(gt=0, allow_inf_nan=False)]
Duration = Annotated[float, BeforeValidator(parse_duration_s), Field(gt=0, allow_inf_nan=False)]
ClassName = int | str


class JobSpec(BaseModel):
    """A bulk generation job. Version 1.

    model: a name from ``un0 models`` or the path of a checkpoint; None is the bundled model.
    count: images. seed: 0..2**64-1; image i depends on (model, seed, i, its class) only.
    classes: class ids or names dealt out in turn, or a mapping from them to weights; None is all.
    deadline: seconds, or for example ``2h30m``, from submission. The scheduler
        plans for it with the fewest joules, and a miss is reported.
    priority: -100..100; higher goes first. objective: what the scheduler minimises: joules, the
        risk of lateness, time, money or grams of CO2e; it never changes an image.
    energy_budget: joules, or for example ``2 kJ``; the job pauses before it exceeds it.
    shard_images: images per commit; None picks 16-64 MB of output, at least 16 shards a job.
    owner, labels: recorded with the job, to report energy by.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    version: Literal[1] = 1
    model: str | None = Field(default=None, min_length=1)
    count: int = Field(ge=1, le=MAX_COUNT)
    seed: int = Field(default=0, ge=0, lt=2**64)
    classes: list[ClassName] | dict[ClassName, float] | None = None
    precision: Precision = "fp32"
    encoding: ImageEncoding = "png"
    shard_images: PositiveInt | None = None
    deadline: Duration | None = None
    priority: int = Field(default=0, ge=-100, le=100)
    objective: Objective = "energy"
    energy_budget: Joules | None = None
    job_id: str | None = None
    owner: str | None = Field(default=None, min_length=1)
    labels: dict[str, str] = Field(default_factory=dict)

    @field_validator("classes")
    @classmethod
    def _classes_usable(cls, value: Any) -> Any:
        if value is not None and not value:
            raise ValueError("is empty; name at least one class, or leave it out for all")
        if isinstance(value, dict):
            for name, weight in value.items():
                if not 0 < weight < float("inf"):
                    raise ValueError(f"class {name!r} has weight {weight}; weights must be > 0")
        return value

    @field_validator("job_id")
    @classmethod
    def _job_id_is_a_key(cls, value: str | None) -> str | None:
        if value is not None and not JOB_ID.fullmatch(value):
            raise ValueError(
                "use 1 to 128 letters, digits, '.', '_' or '-', the first a letter or digit"
            )
        return value


def parse_spec(data: dict[str, Any], source: str = "job spec") -> JobSpec:
    """The spec of this mapping. Raises UserError naming every bad field, its value and the mend."""
    try:
        return JobSpec.model_validate(data)
    except ValidationError as error:
        lines = [_problem(problem) for problem in error.errors()]
        raise UserError("\n".join([f"{source} is not usable:", *dict.fromkeys(lines)])) from None


def load_spec(path: Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file, unchecked. Raises UserError when there is none."""
    return read_mapping(path, "job spec", "count: 1000")


def _problem(problem: Any) -> str:
    """One line for one of pydantic's errors: field, value, what to do."""
    field = str(problem["loc"][0]) if problem["loc"] else "spec"
    if problem["type"] == "extra_forbidden":
        known = ", ".join(JobSpec.model_fields)
        return f"  {field}: unknown field; known fields are {known}"
    if problem["type"] == "missing":
        return f"  {field}: is missing; give it a value"
    message = problem["msg"].removeprefix("Value error, ")
    return f"  {field}: {problem['input']!r}: {message[0].lower()}{message[1:]}"
