"""The checks of ``un0 doctor``: those of the machine, and the list of all.

Each takes where to look and returns (status, detail, fix). What is slow to import (boto3, NVML)
is imported within the check that needs it; torch and Ray are judged by their files, unimported.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from jobs.doctor import NO_DISK, Finding, Probe, Where, enough
from jobs.doctor_ray import check_address, check_ray, check_tokens
from jobs.doctor_store import check_clock, check_proxy, check_store

_PACKAGE = "un0-cluster"
_SHOWN = ("torch", "ray", "pyarrow", "numba")
_NO_MEMORY = 0.8e9  # bytes; Ray's start alone may take that


def check_python(_: Where) -> Finding:
    """Python, and that each package which this one needs is there in a version that will do."""
    from packaging.requirements import Requirement

    wrong, versions = [], []
    for wanted in map(Requirement, metadata.requires(_PACKAGE) or []):
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{wanted.name} is not installed")
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            wrong.append(f"{wanted.name} is {found}, and {wanted.specifier} is needed")
        if wanted.name in _SHOWN:
            versions.append(f"{wanted.name} {found}")
    detail = f"Python {platform.python_version()}, {', '.join(wrong or versions)}"
    if wrong:
        return "fail", detail, f"{sys.executable} -m pip install --upgrade {_PACKAGE}"
    return "ok", detail, None


def check_cpus(_: Where) -> Finding:
    """CPUs of the machine, and those that this process may use."""
    there = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    if usable < there:
        return "warn", f"{usable} of {there} CPUs usable", "widen the CPU affinity (see taskset)"
    return "ok", f"{usable} CPUs usable", None


def check_memory(_: Where) -> Finding:
    """Memory that is free now."""
    try:
        found = re.search(r"^MemAvailable: *(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    except OSError:
        found = None
    if found is None:
        return "ok", "this system does not say what is free", None
    free = int(found[1]) * 1024
    status, fix = enough(free, _NO_MEMORY, "end other programs, or take a machine with more")
    return status, f"{free / 1e9:.1f} GB available", fix


def check_temp(_: Where) -> Finding:
    """The temporary directory: writable, and not full."""
    try:
        with tempfile.NamedTemporaryFile() as file:
            free = shutil.disk_usage(file.name).free
    except OSError as error:
        fix = "set TMPDIR to a writable directory with some space"
        return "fail", f"no temporary file can be made ({error.strerror})", fix
    status, fix_ = enough(free, NO_DISK, "free some space, or set TMPDIR to another directory")
    return status, f"{tempfile.gettempdir()}, {free / 1e9:.1f} GB free", fix_


def check_gpu(_: Where) -> Finding:
    """GPUs, and whether the installed torch can use them with this driver."""
    from cluster.metering.nvml import cuda_version, list_gpus
    from cluster.metering.reading import Refused

    built = _torch_cuda()
    try:
        gpus = list_gpus()
    except Refused as refused:
        return "ok", f"none ({refused.reason})", None
    for gpu in gpus:
        if isinstance(gpu, Refused):
            return "fail", gpu.reason, gpu.mend or "reboot, and see `nvidia-smi`"
    if not gpus:
        return "ok", "none", None
    driver = cuda_version()
    detail = f"{len(gpus)}, driver for CUDA {driver or 'unknown'}, torch for {built or 'CPUs only'}"
    if built is None:
        return "warn", detail, "the GPUs stay unused: install a CUDA build of torch (pytorch.org)"
    if driver and int(built.split(".")[0]) > int(driver.split(".")[0]):
        return "fail", detail, "update the driver, or install a torch built for an older CUDA"
    return "ok", detail, None


def check_meters(_: Where) -> Finding:
    """Where this machine's joules would come from."""
    from cluster.metering.select import choose_machine

    meters = choose_machine()
    try:
        rows = [(choice, choice.source.read()) for choice in meters.choices]
    finally:
        meters.close()
    if not rows:
        return "fail", "no device is metered", "see `un0 meters`"
    shown = (f"{c.source.device.hw_id} by {c.source.provider} ({r.quality})" for c, r in rows)
    detail = ", ".join(shown)
    poor = [choice for choice, reading in rows if not reading.quality.startswith("measured")]
    if not poor:
        return "ok", detail, None
    refused = [refusal for choice in poor for refusal in choice.refused]
    reasons = "; ".join(dict.fromkeys(refusal.reason for refusal in refused))
    mends = [refusal.mend for refusal in refused if refusal.mend]
    fix = mends[0] if mends else "nothing better is here: joules are estimates, with bounds"
    return "warn", f"{detail}: {reasons}" if reasons else detail, fix


def check_cache(_: Where) -> Finding:
    """The folders for what can be made again: this package's, and numba's for compiled code."""
    from un0.paths import cache_folder

    own = cache_folder()
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    beside = Path(str(metadata.distribution(_PACKAGE).locate_file("un0"))) / "engine"
    compiled = [Path(chosen)] if chosen else [beside, own.parent / "numba"]
    if not any(map(_can_write, compiled)):
        fix = "set NUMBA_CACHE_DIR to a writable directory, or every start compiles anew"
        return "warn", f"compiled code cannot be kept: {compiled[-1]} is not writable", fix
    if not _can_write(own):
        return "warn", f"{own} is not writable", "set XDG_CACHE_HOME to a writable directory"
    return "ok", str(own), None


PROBES = (
    Probe("python", check_python),
    Probe("cpus", check_cpus),
    Probe("memory", check_memory),
    Probe("temp", check_temp, "fail", "set TMPDIR to a directory on a disk that answers"),
    Probe("ray", check_ray),
    Probe("ray-address", check_address, "fail", "check --address (or RAY_ADDRESS)"),
    Probe("ray-tokens", check_tokens),
    Probe("gpu", check_gpu, "fail", "the driver hangs: see `nvidia-smi`, and reboot"),
    Probe("meters", check_meters, "warn", "see `un0 meters`"),
    Probe("store", check_store, "fail", "check --store, --endpoint-url, and that the server runs"),
    Probe("proxy", check_proxy),
    Probe("clock", check_clock),
    Probe("cache", check_cache, "warn", "set XDG_CACHE_HOME to a directory that answers"),
)


def _torch_cuda() -> str | None:
    """The CUDA version that the installed torch is built for, from its files; None for CPUs."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    text = Path(spec.origin).with_name("version.py").read_text()
    found = re.search(r"^cuda\b[^=\n]*= *['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return found[1] if found else None


def _can_write(folder: Path) -> bool:
    """Whether files can be made there, or the folder itself where it is not there yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
