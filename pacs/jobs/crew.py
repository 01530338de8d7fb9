"""Worker processes: started, watched, replaced with growing pauses, drained together.

Knows how to begin one and nothing of what it does. A child ends when the pipe
it was given is closed, so none outlives its parent however that ends.
"""

import logging
import os
import signal
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

_LOG = logging.getLogger("pacs.jobs")
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 30.0
_LIVED_WELL_S = 60.0
_LOOK_EVERY_S = 0.05


class Process(Protocol):
    """What of ``subprocess.Popen`` is asked of one that runs."""

    @property
    def returncode(self) -> int | None:
        """The exit code, once it is known to have ended."""
        ...

    def poll(self) -> int | None:
        """The exit code, where it has ended."""
        ...

    def wait(self) -> int:
        """Wait for its end; gives the exit code."""
        ...

    def send_signal(self, number: int) -> None:
        """Signal it, unless it has ended."""
        ...

    def kill(self) -> None:
        """SIGKILL."""
        ...


@dataclass(slots=True, kw_only=True)
class _Place:
    """Where one worker works: the process that does so now, and when the next may begin."""

    process: Process | None = None
    owner: str = ""
    control: int = -1
    begun: float = 0.0
    pause_s: float = 0.0
    next_at: float = 0.0


class Crew:
    """``count`` processes of one kind. Call ``watch`` about once a second, always from one thread.

    ``begin`` starts one under a name, with the end of a pipe that is closed when
    the parent ends; ``bury`` is told that name when the process has died.
    """

    def __init__(
        self,
        begin: Callable[[str, int], Process],
        count: int,
        *,
        bury: Callable[[str], None],
    ) -> None:
        self._begin_one = begin
        self._bury = bury
        self._places = [_Place() for _ in range(count)]

    def watch(self) -> None:
        """Replace who has ended."""
        now = time.monotonic()
        for place in self._places:
            if place.process is not None and place.process.poll() is not None:
                self._gone(place, now)
            if place.process is None and now >= place.next_at:
                self._begin(place, now)

    def _begin(self, place: _Place, now: float) -> None:
        place.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
        place.begun = now
        try:
            theirs, place.control = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            self._not_begun(place, error)
            return
        try:
            place.process = self._begin_one(place.owner, theirs)
        except OSError as error:
            os.close(place.control)
            self._not_begun(place, error)
        finally:
            os.close(theirs)

    def _not_begun(self, place: _Place, error: OSError) -> None:
        self._later(place, place.begun, 0.0)
        _LOG.error("worker-failed: it could not be begun: %s", error)

    def _gone(self, place: _Place, now: float) -> None:
        """Note an end, and let its jobs go to others at once."""
        assert place.process is not None
        code, lived_s = place.process.returncode, now - place.begun
        place.process = None
        os.close(place.control)
        self._later(place, now, lived_s)
        _LOG.error("worker-ended code=%d lived_s=%.0f", code, lived_s)
        self._bury(place.owner)

    def _later(self, place: _Place, now: float, lived_s: float) -> None:
        longer_s = min(max(2 * place.pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
        place.pause_s = _FIRST_PAUSE_S if lived_s > _LIVED_WELL_S else longer_s
        place.next_at = now + place.pause_s

    def stop(self, timeout_s: float) -> None:
        """Drain: everybody finishes or gives back; who is still there after ``timeout_s`` is killed."""
        running = [one for one in self._places if one.process is not None]
        for place in running:
            assert place.process is not None
            if place.process.poll() is None:
                place.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + timeout_s
        for place in running:
            self._ended(place, until)

    def _ended(self, place: _Place, until: float) -> None:
        assert place.process is not None
        while place.process.poll() is None and time.monotonic() < until:
            time.sleep(_LOOK_EVERY_S)
        if place.process.poll() is None:
            _LOG.error("worker-killed: it did not end in time")
            place.process.kill()
        clean = place.process.wait() == 0
        place.process = None
        os.close(place.control)
        if not clean:
            self._bury(place.owner)
