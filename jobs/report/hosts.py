"""Joules of images apart: of the device that made them, and of the CPUs beside it.

A job's rows of GPUs are its device's; its rows of CPUs on the same node are the host's part, which
the node's ledger charges by CPU time. On a node without GPUs the CPUs are the device.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jobs.report.figures import Row, energy_j
from jobs.report.sums import NOTHING, UNKNOWN, Part, Parts

_SEPARATOR = "\x1f"  # in no job's id and no host's name
SPLIT_KEY = (
    "case when bucket = 'job' then "
    f"concat_ws(chr({ord(_SEPARATOR)}), job_id, host_name, coalesce(hw_type, '')) end"
)


@dataclass(frozen=True)
class Split:
    """Of a job's images: what devices took, and the CPUs beside those that are GPUs.

    hosted: the images that have CPUs beside their device. host: UNKNOWN where these are not
    metered.
    """

    device: Part = NOTHING
    host: Part = NOTHING
    hosted: int = 0

    def __add__(self, other: Split) -> Split:
        return Split(self.device + other.device, self.host + other.host, self.hosted + other.hosted)


def splits_of(sums: Mapping[str | None, Parts]) -> dict[str, Split]:
    """By job, from the sums by ``SPLIT_KEY``."""
    nodes: defaultdict[tuple[str, str], dict[str, Part]] = defaultdict(dict)
    for key, parts in sums.items():
        if key is not None:
            job_id, host_name, hw_type = key.split(_SEPARATOR)
            nodes[job_id, host_name][hw_type] = parts.get("job", NOTHING)
    found: defaultdict[str, Split] = defaultdict(Split)
    for (job_id, _), own in nodes.items():
        found[job_id] += _split(own)
    return found


def _split(node: Mapping[str, Part]) -> Split:
    """Of a job on one node."""
    gpu = node.get("gpu")
    if gpu is None:
        return Split(device=sum(node.values(), NOTHING))
    return Split(gpu, node.get("cpu", UNKNOWN), gpu.images)


class EncodingRow(Row):
    """A row of an encoding: joules per image of the device, and of the CPUs beside it.

    host_*: None where they are not known, or the device is the host.
    """

    device_j_per_image: float | None
    device_j_per_image_low: float | None
    device_j_per_image_high: float | None
    host_j_per_image: float | None
    host_j_per_image_low: float | None
    host_j_per_image_high: float | None


def encoding_row(row: Row, splits: Iterable[Split]) -> EncodingRow:
    """The row, with the splits of its jobs."""
    whole = sum(splits, Split())
    apart = energy_j(whole.device).over(whole.device.images).named("device_j_per_image{}")
    apart |= energy_j(whole.host).over(whole.hosted).named("host_j_per_image{}")
    return EncodingRow(**{**dict(row), **apart})
