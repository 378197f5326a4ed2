"""What Prometheus scrapes from a node: joules by where they went, with few label values."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError

import pytest
import ray

from cluster.actors.node_meter import ReplicaMeter, meter_on
from cluster.ledger.usage import Work
from cluster.storage.object_store import StoreConfig
from tests.support.nvml_stub import Gpu, build_nvml_stub
from tests.support.stub_node import play

# A row is final half a minute after the energy was spent.
pytestmark = [pytest.mark.ray, pytest.mark.slow]
WAIT_S = 150.0


def main(store: str) -> None:
    """Play a replica on a GPU, then print the metrics that tell of it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray.init(address="local", num_cpus=1, _metrics_export_port=port, include_dashboard=False,
             log_to_driver=False)  # fmt: skip
    node_id = ray.get_runtime_context().get_node_id()
    run = asyncio.run(meter_on(node_id, StoreConfig(f"file://{store}"), "local", "run"))
    meter = ReplicaMeter(run, run.tenant("replica-0", "GPU-a"))
    meter.begin("attempt", Work(job_id="job", shard=0))
    time.sleep(1.0)  # for the board to spend 50 J
    meter.end("attempt", images=100)
    run.settle({"attempt": "won"})
    deadline_s = time.monotonic() + WAIT_S
    text = ""
    awaited = ("ray_un0_images_total", "ray_un0_power_watts", 'zone="gpu"', 'zone="host"')
    while not all(part in text for part in awaited):
        assert time.monotonic() < deadline_s, text
        time.sleep(0.5)
        with (
            suppress(URLError),  # the exporter comes up after the node
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page,
        ):
            text = page.read().decode()
    print(json.dumps([line for line in text.splitlines() if line.startswith("ray_un0_")]))


def test_energy_can_be_scraped(tmp_path: Path) -> None:
    stub = build_nvml_stub(tmp_path)
    stub.add(Gpu("GPU-a", counter_mj=1000, rate_mw=50_000))
    lines = play(__file__, stub, str(tmp_path / "store"))
    images = next(line for line in lines if line.startswith("ray_un0_images_total"))
    assert float(images.rsplit(" ", 1)[1]) == 100
    assert 'bucket="job"' in images
    assert 'hw_type="gpu"' in images
    joules = [line for line in lines if line.startswith("ray_un0_energy_joules_total")]
    assert any('zone="gpu"' in line and 'quality="measured_counter"' in line for line in joules)
    assert any('zone="host"' in line for line in joules)
    assert not re.search(r'job="|shard=|attempt', "".join(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
