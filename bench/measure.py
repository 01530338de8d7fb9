"""What a server costs while it works: processor time and memory of its whole process tree, from /proc.

It watches and adds up; it decides nothing about what is timed. Linux only.
"""

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

PROC = Path("/proc")
SAMPLE_INTERVAL_S = 0.05
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
KIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a stretch of work took from a server."""

    cpu_s: float
    peak_bytes: int
    """Peak resident sets of all its processes that lived at once, added up."""
    peak_process_bytes: int
    """Peak resident set of its largest process."""


class Watch:
    """Measure a server's process tree while the block runs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._peak_bytes = self._peak_process_bytes = 0
        self._cpu_before_s = self._cpu_after_s = 0.0

    def __enter__(self) -> "Watch":
        self._look()
        self._cpu_before_s = cpu_s(self._pid)
        self._sampler.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._cpu_after_s = cpu_s(self._pid)
        self._ended.set()
        self._sampler.join()
        self._look()

    @property
    def cost(self) -> Cost:
        """What the block took; complete once it has been left."""
        return Cost(
            cpu_s=self._cpu_after_s - self._cpu_before_s,
            peak_bytes=self._peak_bytes,
            peak_process_bytes=self._peak_process_bytes,
        )

    def _sample(self) -> None:
        """Catch children that come and go. Cheaply: every look takes time from what is measured."""
        while not self._ended.wait(SAMPLE_INTERVAL_S):
            self._look(thoroughly=False)

    def _look(self, *, thoroughly: bool = True) -> None:
        processes = tree(self._pid) if thoroughly else main_tree(self._pid)
        peaks = [status_bytes(one, "VmHWM") for one in processes]
        self._peak_bytes = max(self._peak_bytes, sum(peaks))
        self._peak_process_bytes = max(self._peak_process_bytes, *peaks, 0)


def tree(pid: int) -> Iterator[int]:
    """Yield a process and all its living or not yet collected descendants."""
    yield pid
    for task in _entries(PROC / str(pid) / "task"):
        for child in _text(task / "children").split():
            yield from tree(int(child))


def main_tree(pid: int) -> Iterator[int]:
    """Yield a process and the descendants that main threads made: two reads, however many threads."""
    yield pid
    for child in _text(PROC / str(pid) / "task" / str(pid) / "children").split():
        yield from main_tree(int(child))


def cpu_s(pid: int) -> float:
    """Add up user and system time of a tree, children that have ended and were collected included."""
    return sum(map(_ticks, tree(pid))) / TICKS_PER_S


def status_bytes(pid: int, name: str) -> int:
    """Give one memory figure of /proc/PID/status; 0 when the process has none any more."""
    return kib_of(_text(PROC / str(pid) / "status"), name) * KIB


def shared_fairly_bytes(pid: int) -> int:
    """Give a tree's memory with pages that several processes share counted once (Pss)."""
    return sum(kib_of(_text(PROC / str(one) / "smaps_rollup"), "Pss") for one in tree(pid)) * KIB


def kib_of(status: str, name: str) -> int:
    """Read ``Name:   123 kB`` out of a status file; 0 when the line is not there.

    Examples
    --------
    >>> kib_of("VmHWM:     5120 kB", "VmHWM")
    5120
    """
    for line in status.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


def ticks_of(stat: str) -> int:
    """Add utime, stime, cutime and cstime of a /proc/PID/stat line (proc(5)).

    Examples
    --------
    >>> ticks_of("7 (a (b) c) S 1 7 7 0 -1 0 0 0 0 0 3 4 50 60 20 0 1 0 0 0 0")
    117
    """
    fields = stat.rpartition(")")[2].split()  # the name before it may hold blanks and brackets
    return sum(map(int, fields[11:15]))


def _ticks(pid: int) -> int:
    stat = _text(PROC / str(pid) / "stat")
    return ticks_of(stat) if stat else 0


def _text(path: Path) -> str:
    """Read a file of /proc; empty when its process has gone meanwhile."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return []
