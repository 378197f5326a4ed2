"""The checks of ``un0 doctor``: those of the machine, and the list of all.

Each takes where to look and returns (status, detail, fix). What is slow to import (boto3, NVML)
is imported within the check that needs it; torch and Ray are judged by their files, unimported.
"""

from __future__ import annotations

import platform
import re
import shutil
import sys
import tempfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from cluster.health import Check
from jobs.doctor import NO_DISK, Finding, Probe, Where, enough
from un0.machine import cpus_here, memory_here
from un0.paths import FIX, cache_here

_PACKAGE = "un0-cluster"
_SHOWN = ("torch", "ray", "pyarrow", "numba")


def check_python(_: Where) -> Finding:
    """Python, and whether each required package is installed in a suitable version."""
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
    cpus = cpus_here()
    if cpus.usable < cpus.machine:
        fix = "ask for more CPUs where that limit is set, or set UN0_CPUS to overrule it"
        return "warn", f"usable are {cpus}", fix
    return "ok", f"{cpus.usable} CPUs usable", None


def check_memory(_: Where) -> Finding:
    """Free memory under all limits, compared with what a run needs."""
    from cluster.actors.room import check_memory as check_room

    memory = memory_here()
    check_room(memory)
    return "ok", str(memory), None


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
    """GPUs, the CPUs near each, and whether the installed torch can use them with this driver."""
    from cluster.hardware.host_share import near_cpus
    from cluster.metering.nvml import cuda_version, gpu_bus_ids, list_gpus
    from cluster.metering.source import Refused

    built = _torch_cuda()
    try:
        gpus = list_gpus()
    except Refused as refused:
        return "ok", f"none ({refused.reason})", None
    for gpu in gpus:
        if isinstance(gpu, Refused):
            return "fail", gpu.reason, gpu.fix or "reboot, and see `nvidia-smi`"
    if not gpus:
        return "ok", "none", None
    driver = cuda_version()
    detail = f"{len(gpus)}, driver for CUDA {driver or 'unknown'}, torch for {built or 'CPUs only'}"
    near = [cpus for bus_id in gpu_bus_ids().values() if (cpus := near_cpus(bus_id)) is not None]
    if near:
        detail += f", usable CPUs near each: {', '.join(str(len(cpus)) for cpus in near)}"
    if built is None:
        return "warn", detail, "the GPUs stay unused: install a CUDA build of torch (pytorch.org)"
    if driver and int(built.split(".")[0]) > int(driver.split(".")[0]):
        return "fail", detail, "update the driver, or install a torch built for an older CUDA"
    return "ok", detail, None


def check_meters(_: Where) -> list[Check]:
    """How this machine's energy is metered, and whether the meters are plausible."""
    from cluster.metering.check import check_meters as check_devices

    found = []
    for meter in check_devices():
        source = f"{meter.provider} ({meter.quality.replace('_', ' ')})"
        detail = f"{source}: {meter.reason}" if meter.reason else source
        fix = meter.fix or (None if meter.status == "ok" else "see `un0 meters`")
        found.append(
            Check(name=f"meter {meter.device}", status=meter.status, detail=detail, fix=fix)
        )
    none = Check(name="meters", status="fail", detail="no device is metered", fix="`un0 meters`")
    return found or [none]


def check_ray(where: Where) -> list[Check]:
    """Whether a run can use Ray: the cluster at the address, or one started here."""
    from cluster.actors.ray_check import check_ray as check_way_in

    return check_way_in(where.address, cpus_here().usable)


def check_store(where: Where) -> list[Check]:
    """The store's address, rights, conditions, encryption, clock, proxy and room."""
    from cluster.storage.diagnose import check_store as diagnose

    return diagnose(
        where.store,
        endpoint_url=where.endpoint_url,
        sse=where.sse,
        sse_kms_key=where.sse_kms_key,
    )


def check_cache(_: Where) -> Finding:
    """The cache folder: compiled code, tuning results, downloaded models."""
    cache = cache_here()
    if not cache.writable:
        return "warn", cache.costs.removesuffix(f"; {FIX}"), FIX
    if cache.trouble:
        return "warn", f"{cache.folder}: {cache.trouble}", FIX
    return "ok", str(cache.folder), None


PROBES = (
    Probe("python", check_python),
    Probe("cpus", check_cpus),
    Probe("memory", check_memory),
    Probe("temp", check_temp, "fail", "set TMPDIR to a directory on a disk that answers"),
    Probe("ray", check_ray, "fail", "check --address (or RAY_ADDRESS), or leave it out"),
    Probe("gpu", check_gpu, "fail", "the driver hangs: see `nvidia-smi`, and reboot"),
    Probe("meters", check_meters, "warn", "see `un0 meters`"),
    Probe("store", check_store, "fail", "check --store, --endpoint-url, and that the server runs"),
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
