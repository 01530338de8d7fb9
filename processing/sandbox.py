"""Runs functions in processes of their own, so that a codec's crash stays there.

Owns the workers: started when first needed, kept for further tasks, killed
and replaced when they crash, run out of time or answer nonsense. Decides
nothing about what runs. Tasks are named "module:function", arguments and
results are JSON, so nothing a hijacked worker answers is executed here.
"""

import json
import os
import select
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from processing import sandbox_worker

_MAX_ANSWER_BYTES = 1 << 20
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")
_CPU_PER_SECOND = max(1, min(os.cpu_count() or 1, 4))
"""Processor seconds a task may use in a second: a codec may run several threads."""
_WALL_PER_CPU = 8
"""Seconds by the clock for each processor second a task may need: others want the processors, too."""


class TaskFailed(Exception):
    """The task raised, crashed, broke a bound, or the sandbox is closed.

    ``kind`` names the exception that the task raised, if it raised one.
    """

    def __init__(self, message: str, *, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one task may use.

    ``timeout_s`` is by the clock; a task of known size may go on as long as its
    processor time lasts, and must not rest that long.
    """

    timeout_s: float
    memory_bytes: int
    file_bytes: int


class Sandbox:
    """A pool of worker processes; ``run`` may be called from many threads at once.

    Use it after forking, not before: workers belong to the process that began them.
    """

    def __init__(self, bounds: Bounds, *, workers: int = 0) -> None:
        """``workers`` at most, each begun when there is work for it; 0 is one per core."""
        self._bounds = bounds
        # Each thread of the pool owns one worker process and starts it itself: the
        # kernel ends a child with the thread, not the process, that started it,
        # and the threads of associations come and go.
        self._threads = ThreadPoolExecutor(
            workers or os.cpu_count() or 1, thread_name_prefix="sandbox"
        )
        self._own = threading.local()
        self._workers: set[_Worker] = set()
        self._lock = threading.Lock()
        self._closed = False

    def run(self, name: str, *arguments: object, cpu_s: float | None = None) -> object:
        """Run "module:function" in a worker and give its result. Raises ``TaskFailed``.

        With ``cpu_s`` it may use so much processor time, however busy the machine is: by the
        clock it has a multiple of that, as long as it does not rest for ``timeout_s``.
        Waiting for a free worker does not count against the task's time, but
        waits no longer than the tasks before it may take.
        """
        try:
            return self._threads.submit(self._run_here, name, arguments, cpu_s).result()
        except (RuntimeError, CancelledError) as error:
            raise TaskFailed("the sandbox is closed") from error

    def worker_pids(self) -> frozenset[int]:
        """List the processes that run now."""
        with self._lock:
            return frozenset(worker.pid for worker in self._workers)

    def close(self) -> None:
        """End all workers, busy or not; tasks under way fail. May be called twice."""
        with self._lock:
            self._closed = True
            for worker in self._workers:
                worker.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            for worker in self._workers:
                worker.end()
            self._workers.clear()

    def _run_here(self, name: str, arguments: tuple[object, ...], cpu_s: float | None) -> object:
        worker = self._worker()
        timeout_s = self._bounds.timeout_s
        if cpu_s is None:
            patience = _Patience(timeout_s * _CPU_PER_SECOND, timeout_s, timeout_s)
        else:
            patience = _Patience(cpu_s, cpu_s * _WALL_PER_CPU, timeout_s)
        try:
            answer = worker.ask(name, arguments, patience)
        except BaseException as error:
            self._drop(worker)
            if isinstance(error, (OSError, ValueError)):
                raise TaskFailed("the worker crashed or ran out of time") from error
            raise
        if "result" not in answer:
            # Memory may be fragmented and codecs in disorder: start afresh.
            kind = str(answer.get("error"))
            if kind in ("MemoryError", "SystemError"):
                self._drop(worker)
            raise TaskFailed(f"the task raised {kind}", kind=kind)
        return answer["result"]

    def _worker(self) -> "_Worker":
        worker: _Worker | None = getattr(self._own, "worker", None)
        if worker is not None and worker.alive():
            return worker
        if worker is not None:
            self._drop(worker)
        with self._lock:
            if self._closed:
                raise TaskFailed("the sandbox is closed")
            try:
                worker = _Worker(self._bounds)
            except OSError as error:
                raise TaskFailed("no worker could be started") from error
            self._workers.add(worker)
        self._own.worker = worker
        return worker

    def _drop(self, worker: "_Worker") -> None:
        self._own.worker = None
        with self._lock:
            self._workers.discard(worker)
        worker.end()


def _environment() -> dict[str, str]:
    """What a worker may know of ours: where code lies, no secrets of the server."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    path = os.pathsep.join(filter(None, sys.path))
    return kept | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}


class _Patience(NamedTuple):
    """What one task may use of the processor and of the clock, and how long it may rest."""

    cpu_s: float
    wall_s: float
    idle_s: float


class _Worker:
    """One process and the pipes to it. Used by one thread, killed by any."""

    def __init__(self, bounds: Bounds) -> None:
        limits = (os.getpid(), bounds.memory_bytes, bounds.file_bytes)
        self._process = subprocess.Popen(
            [sys.executable, "-m", sandbox_worker.__name__, *map(str, limits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,  # Ctrl-C in our terminal is not for it
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise OSError("no pipes to the worker")
        self._requests: IO[bytes] = self._process.stdin
        self._answers: IO[bytes] = self._process.stdout
        self.pid = self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(
        self, name: str, arguments: tuple[object, ...], patience: _Patience
    ) -> dict[str, object]:
        """Send one task and wait. Raises ``OSError`` or ``ValueError`` when no answer comes."""
        deadline = time.monotonic() + patience.wall_s
        task = json.dumps((name, arguments, patience.cpu_s)).encode()
        self._requests.write(sandbox_worker.HEADER.pack(len(task)) + task)
        self._requests.flush()
        self._await_answer(deadline, patience.idle_s)
        (length,) = sandbox_worker.HEADER.unpack(
            self._receive(sandbox_worker.HEADER.size, deadline)
        )
        if length > _MAX_ANSWER_BYTES:
            raise ValueError("answer is too long")
        answer = json.loads(self._receive(length, deadline))
        if not isinstance(answer, dict):
            raise ValueError("answer is no record")
        return answer

    def _await_answer(self, deadline: float, idle_s: float) -> None:
        """Wait until something comes. Raises ``TimeoutError``, early where the process does nothing."""
        used = self._used_ticks()
        while not self._is_readable(min(deadline, time.monotonic() + idle_s)):
            before, used = used, self._used_ticks()
            if used == before or time.monotonic() >= deadline:
                raise TimeoutError("the task took too long, or came to rest")

    def _used_ticks(self) -> int:
        """Tell the processor time used until now, as the kernel counts it: proc(5), utime and stime."""
        said = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return int(said[11]) + int(said[12])

    def _is_readable(self, deadline: float) -> bool:
        poller = select.poll()
        poller.register(self._answers, select.POLLIN)
        return bool(poller.poll(max(0.0, deadline - time.monotonic()) * 1000))

    def _receive(self, length: int, deadline: float) -> bytes:
        received = bytearray()
        while len(received) < length:
            if not self._is_readable(deadline):
                raise TimeoutError("the task took too long")
            piece = os.read(self._answers.fileno(), length - len(received))
            if not piece:
                raise ConnectionError("the worker has ended")
            received += piece
        return bytes(received)

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        """Kill the process, reap it and close the pipes."""
        self._process.kill()
        self._process.wait()
        self._answers.close()
        try:
            self._requests.close()
        except BrokenPipeError:
            return  # an unsent task died with it
