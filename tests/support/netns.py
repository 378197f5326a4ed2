"""Ray nodes in network and UTS namespaces of their own: hosts that can be cut off for real.

All of it is in namespaces that are made here; the machine's own network is not touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.support.rayfleet import SHORT_HEALTH

WAIT_S = 60.0
PATIENCE_S = 600  # a node that is cut off stays up for so long
PORT = 6379


def why_not() -> str:
    """Why no namespaces can be made here; empty if they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not shutil.which("ip") or not shutil.which("unshare"):
        return "network namespaces need ip (iproute2) and unshare (util-linux)"
    name = f"un0-{os.getpid()}-try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"no network namespace can be made: {made.stderr.strip()}"
    _ip("netns", "del", name)
    return ""


@dataclass
class NetFleet:
    """A head and nodes on a bridge. ``run`` says how to run a command on a node."""

    directory: Path
    _names: dict[str, str] = field(default_factory=dict)  # namespace by node

    @property
    def address(self) -> str:
        return f"{self._ip_of('head')}:{PORT}"

    def run(self, node: str) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self._names[node])

    def start(self, *nodes: str) -> None:
        self._namespace("head")
        self._in("head", "link", "add", "bridge", "type", "bridge")
        self._in("head", "addr", "add", f"{self._ip_of('head')}/24", "dev", "bridge")
        self._in("head", "link", "set", "bridge", "up")
        self._ray("head", "--head", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=false")
        door = (self._ip_of("head"), PORT)
        self._until(f"import socket; socket.create_connection({door}, 1)", "head")
        for node in nodes:
            self._namespace(node)
            self._in("head", "link", "add", node, "type", "veth", "peer", "name", "eth0",
                     "netns", self._names[node])  # fmt: skip
            self._in("head", "link", "set", node, "master", "bridge", "up")
            self._in(node, "addr", "add", f"{self._ip_of(node)}/24", "dev", "eth0")
            self._in(node, "link", "set", "eth0", "up")
            self._ray(node, f"--address={self.address}", "--num-cpus=1")
            # Nodes that start at once on one file system take the same socket, and one aborts
            self._until(f"import ray; ray.init({self.address!r}, log_to_driver=False); "
                        f"assert {node!r} in [n['NodeManagerHostname'] for n in ray.nodes()]",
                        node)  # fmt: skip

    def cut_off(self, node: str) -> None:
        """Nothing gets from or to the node any more."""
        self._in("head", "link", "set", node, "down")

    def heal(self, node: str) -> None:
        self._in("head", "link", "set", node, "up")

    def processes(self, node: str, title: str = "") -> list[psutil.Process]:
        """The node's processes, by the title that Ray gives them."""
        found = []
        for pid in _ip("netns", "pids", self._names[node]).split():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(int(pid))
                if title in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def close(self) -> None:
        for node, name in self._names.items():
            processes = self.processes(node)
            for process in processes:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(processes, timeout=WAIT_S)
            _ip("netns", "del", name)
        noted = Path("/tmp/ray/ray_current_cluster")  # by which others would look for it
        if noted.exists() and noted.read_text().strip() == self.address:
            noted.unlink()

    def _namespace(self, node: str) -> None:
        name = f"un0-{os.getpid()}-{node}"
        _ip("netns", "add", name)
        self._names[node] = name
        self._in(node, "link", "set", "lo", "up")

    def _in(self, node: str, *command: str) -> None:
        _ip("-n", self._names[node], *command)

    def _ip_of(self, node: str) -> str:
        return f"10.77.0.{1 + list(self._names).index(node)}"

    def _ray(self, node: str, *options: str) -> None:
        """A raylet on the node, which calls itself by the node's name."""
        start = ["-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats",
                 f"--node-ip-address={self._ip_of(node)}", *options]  # fmt: skip
        named = f'hostname {node}; exec "$@"'
        settings = {**SHORT_HEALTH, "gcs_rpc_server_reconnect_timeout_s": PATIENCE_S}
        env = os.environ | {f"RAY_{name}": str(value) for name, value in settings.items()}
        with (self.directory / f"{node}.log").open("w") as log:
            subprocess.Popen(
                [*self.run(node), "unshare", "--uts", "sh", "-c", named, "sh",
                 sys.executable, *start],
                stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env,
            )  # fmt: skip

    def _until(self, condition: str, node: str) -> None:
        """Wait until this is so, as seen from the head's own namespace."""
        until_s = time.monotonic() + WAIT_S
        command = [*self.run("head"), sys.executable, "-c", condition]
        while subprocess.run(command, capture_output=True).returncode:
            assert time.monotonic() < until_s, (self.directory / f"{node}.log").read_text()
            time.sleep(0.2)


@contextlib.contextmanager
def net_fleet(directory: Path, *nodes: str) -> Iterator[NetFleet]:
    """A head and these nodes; no process and no namespace of it is left afterwards."""
    fleet = NetFleet(directory)
    try:
        fleet.start(*nodes)
        yield fleet
    finally:
        fleet.close()


@contextlib.contextmanager
def private_ray(setup: str) -> Iterator[tuple[str, ...]]:
    """Namespaces with a loopback, processes and a /tmp/ray of their own, in which the shell command
    ``setup`` has run. Yields the command that runs others in there; nothing of them is left."""
    usual = Path("/tmp/ray")
    missing = not usual.exists()
    usual.mkdir(exist_ok=True)  # to mount on
    script = (
        f"mount --make-rprivate / && mount -t tmpfs -o mode=1777 tmpfs {usual} && "
        f"ip link set lo up && {{ {setup}; }} && echo up && exec sleep {PATIENCE_S}"
    )
    unshare = ["unshare", "-n", "-m", "-p", "-f", "--mount-proc", "--kill-child"]
    with subprocess.Popen([*unshare, "sh", "-c", script], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n", f"it failed: {script}"
            (first,) = psutil.Process(process.pid).children()
            yield ("nsenter", "-t", str(first.pid), "-n", "-m", "-p")
        finally:
            process.kill()
    if missing:
        usual.rmdir()


def _ip(*args: str) -> str:
    done = subprocess.run(["ip", *args], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(args)}: {done.stderr}"
    return done.stdout
