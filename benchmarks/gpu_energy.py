"""What a GPU's meters are worth, and what an image costs on it by batch size.

    updates      how often the energy counter moves
    agreement    the counter against the driver's power, integrated, idle and while generating
    J/image      by the counter, at batches of 1 to 4,096, each for some seconds

    python benchmarks/gpu_energy.py [--uuid GPU-…] [--seconds 60] [--batch-s 10]
                                    [--batches 1 4 16 64 256 1024 4096] [--json]

The GPU is the first that NVML lists, unless --uuid is given; torch must see that one alone
(CUDA_VISIBLE_DEVICES). Nothing else should run on it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from cluster.ledger.reading import Reading
from cluster.metering.nvml import list_gpus
from cluster.metering.nvml_sources import NvmlCounter, NvmlPower
from cluster.metering.period import update_period_s
from cluster.metering.source import Refused, Source
from un0 import Sampler, Un0Model, load_model

WARN, FAIL = 0.05, 0.10  # of difference between counter and power
SHORT_S = 0.1


@dataclass(frozen=True)
class Agreement:
    """Counter and integrated power over the same time. difference: of the counter's joules."""

    state: str
    seconds: float
    counter_j: float
    power_j: float

    @property
    def difference(self) -> float:
        return self.power_j / self.counter_j - 1 if self.counter_j else float("inf")

    @property
    def verdict(self) -> str:
        apart = abs(self.difference)
        return "ok" if apart < WARN else "differs" if apart < FAIL else "FAILS"


@dataclass(frozen=True)
class Cost:
    """Images of one batch size, and what they took."""

    batch: int
    images: int
    seconds: float
    energy_j: float


def spent_j(before: Reading, after: Reading) -> float:
    """Joules between two readings; exits where they cannot be subtracted."""
    if before.energy_mj is None or after.energy_mj is None or before.epoch != after.epoch:
        sys.exit(f"the energy between two readings is unknown: {before}, {after}")
    return (after.energy_mj - before.energy_mj) / 1e3


def agreement(
    state: str, counter: Source, power: Source, seconds: float, act: Callable[[], object]
) -> Agreement:
    """Compare the meters while ``act`` is done again and again."""
    act()
    before = counter.read(), power.read()
    while (counter.read().at_ns - before[0].at_ns) / 1e9 < seconds:
        act()
    after = counter.read(), power.read()
    elapsed_s = (after[0].at_ns - before[0].at_ns) / 1e9
    joules = (spent_j(a, b) for a, b in zip(before, after, strict=True))
    return Agreement(state, elapsed_s, *joules)


def cost(
    model: Un0Model, counter: Source, batch: int, seconds: float, device: str, precision: str
) -> Cost:
    """Generate in batches of one size for some seconds; a batch ends with its images in memory."""
    sampler = Sampler(model, device=device, precision=precision, tile=batch)
    sampler.warm_up()
    class_ids = np.arange(batch) % model.config.num_classes
    images, before = 0, counter.read()
    after = before
    while (after.at_ns - before.at_ns) / 1e9 < seconds:
        images += len(sampler.generate(0, images, class_ids))
        after = counter.read()
    return Cost(batch, images, (after.at_ns - before.at_ns) / 1e9, spent_j(before, after))


def measure(options: argparse.Namespace) -> None:
    found = [gpu for gpu in list_gpus() if isinstance(gpu, str)]
    uuid = options.uuid or next(iter(found), None)
    if uuid is None:
        raise Refused("NVML lists no GPU that works")
    counter, power = NvmlCounter(uuid), NvmlPower(uuid)
    model = load_model(options.model)
    busy = Sampler(model, device=options.device, precision=options.precision)
    busy.warm_up()
    class_ids = np.arange(1024) % model.config.num_classes
    period_s = update_period_s(counter, watch_s=5.0)
    agreements = [
        agreement("idle", counter, power, options.seconds, lambda: time.sleep(SHORT_S)),
        agreement("busy", counter, power, options.seconds, lambda: busy.generate(0, 0, class_ids)),
    ]
    costs = [
        cost(model, counter, batch, options.batch_s, options.device, options.precision)
        for batch in options.batches
    ]
    device = counter.device
    for source in (counter, power):
        source.close()
    if options.json:
        print(
            json.dumps(
                {
                    "device": device.hw_name,
                    "driver_version": device.driver_version,
                    "model": options.model,
                    "precision": options.precision,
                    "update_period_s": period_s,
                    "agreement": [{**asdict(a), "difference": a.difference} for a in agreements],
                    "cost": [{**asdict(c), "j_per_image": c.energy_j / c.images} for c in costs],
                }
            )
        )
        return
    print(f"{device.hw_name}, driver {device.driver_version}; {options.model}, {options.precision}")
    print("counter updated every", "?" if period_s is None else f"{period_s * 1e3:.0f} ms")
    print(f"\n{'state':8}{'seconds':>9}{'counter J':>12}{'power J':>12}{'difference':>12}")
    for a in agreements:
        print(f"{a.state:8}{a.seconds:9.1f}{a.counter_j:12.1f}{a.power_j:12.1f}"
              f"{a.difference:+12.1%}  {a.verdict}")  # fmt: skip
    print(f"\n{'batch':>6}{'images':>10}{'images/s':>10}{'W':>8}{'J/image':>12}")
    for c in costs:
        print(f"{c.batch:6}{c.images:10,}{c.images / c.seconds:10,.0f}{c.energy_j / c.seconds:8.1f}"
              f"{c.energy_j / c.images:12.5f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--uuid")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--batch-s", type=float, default=10.0, help="at least 2: counters are slow")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64, 256, 1024, 4096])
    parser.add_argument("--model", default="fashion32/n512")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", action="store_true")
    try:
        measure(parser.parse_args())
    except Refused as refused:
        sys.exit(f"{refused.reason}{f': {refused.fix}' if refused.fix else ''}")


if __name__ == "__main__":
    main()
