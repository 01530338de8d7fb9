"""What a run ran on: figures without their machine mean nothing."""

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from tests.peers import find as find_tool

GIB = 1 << 30
LIBRARIES = ("pynetdicom", "pydicom", "peewee", "blake3")


def describe(folder: Path) -> list[str]:
    """Describe processor, memory, disk, system and versions, one line each."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    libraries = ", ".join(f"{one} {version(one)}" for one in LIBRARIES)
    load = os.getloadavg()[0]
    return [
        f"{os.cpu_count()} cores ({processor()}), {memory_bytes / GIB:.0f} GiB memory, "
        f"load {load:.1f} at the start",
        f"{file_system(folder, Path('/proc/mounts').read_text(encoding='utf-8'))}, "
        f"Linux {platform.release()}",
        f"Python {platform.python_version()}, {libraries}",
        f"DCMTK {tool_version('storescu')}, Orthanc {tool_version('Orthanc')}",
    ]


def processor() -> str:
    """Name the processor."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def file_system(folder: Path, mounts: str) -> str:
    r"""Name the file system that holds a folder, by the longest mount point above it.

    Examples
    --------
    >>> file_system(Path("/data/x"), "/dev/a / ext4 rw 0 0\n/dev/b /data xfs rw 0 0")
    'xfs'
    """
    above = {folder, *folder.parents}
    found = [
        (len(point), kind)
        for _, point, kind, *_ in map(str.split, mounts.splitlines())
        if Path(point) in above
    ]
    return max(found)[1] if found else "an unknown file system"


def tool_version(tool: str) -> str:
    """Ask a tool for its version."""
    path = find_tool(tool)
    if path is None:
        return "not installed"
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    return version_in(said)


def version_in(said: str) -> str:
    """Find the first word that looks like a version.

    Examples
    --------
    >>> version_in("$dcmtk: storescu v3.6.7 2022-04-22 $")
    '3.6.7'
    """
    for one in said.split():
        digits = one.removeprefix("v")
        if digits[:1].isdigit() and "." in digits:
            return digits
    return "of unknown version"


def notes(counts: Sequence[str]) -> list[str]:
    """Say how the figures were taken."""
    return [
        *counts,
        "Servers run with TCP_NODELAY=1 and 128 KiB PDUs; the tuned client too, the stock client "
        "is DCMTK as Debian ships it. Clients' process starts are in the time, for all alike.",
    ]
