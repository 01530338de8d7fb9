"""Sending the trail to a collector: from the place noted last, over and over, whatever happens.

The place moves only behind what counts as taken: acknowledged by the collector's
machine, on a connection that lasted ``audit.confirm_s`` longer, or closed
orderly from both sides. What was sent after it is sent again; a collector tells
such messages by their ``SpoolRecords``. Reads files that stores append to, and
is in nobody's way.
"""

import json
import logging
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from config.settings import Audit
from pacs.observe.audit.fold import Folded, Folding
from pacs.observe.audit.keep import replace
from pacs.observe.audit.mapping import messages_of
from pacs.observe.audit.message import Outcome, Source, xml_of
from pacs.observe.audit.records import Spot, records
from pacs.observe.audit.syslog import Collector, framed

_LOG = logging.getLogger("pacs.audit")
_AT_ONCE = 256
_LAST_WORD_S = 2.0
_NOTE_EVERY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What is known of the sending: up to where, and how it goes."""

    spot: Spot = Spot()
    failures: int = 0
    """In a row."""
    why: str = ""


class _Waiting(NamedTuple):
    """A message that does not count as taken yet, and where the trail goes on once it does."""

    sent_s: float
    spot: Spot


def noted(folder: Path) -> Sent:
    """Read what was noted in the folder of the chain."""
    try:
        said = json.loads((folder / "sent").read_text())
        return Sent(spot=Spot(*said["spot"]), failures=said["failures"], why=said["why"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return Sent()  # then all of it is sent again


class Sender:
    """One attempt after the other; ``turn`` is called again and again by one thread of one process."""

    def __init__(self, folder: Path, state: Path, settings: Audit, source: Source) -> None:
        self._folder, self._state = folder, state
        self._settings, self._source = settings, source
        self._collector: Collector | None = None
        self._sent = noted(state)
        self._read = self._sent.spot
        self._folding = Folding(settings)
        self._waiting: deque[_Waiting] = deque()
        self._again_s = 0.0
        self._noted_s = 0.0

    @property
    def sent(self) -> Sent:
        """How far it is."""
        return self._sent

    def turn(self) -> bool:
        """Send what is there and note what was taken; tells whether there was anything to do."""
        if time.monotonic() < self._again_s:
            return False
        try:
            if self._collector is None:
                self._collector = Collector(self._settings)
            self._collector.check()
            busy = self._pass_on(self._collector)
            self._confirm(self._collector)
        except (OSError, ValueError) as error:
            self._failed(error)
            return False
        return busy

    def finish(self) -> None:
        """Send what is there, folds that could grow included, and end the connection. Never raises."""
        collector = self._collector
        if collector is None:
            return
        deadline_s = time.monotonic() + _LAST_WORD_S
        try:
            while self._pass_on(collector) and time.monotonic() < deadline_s:
                continue
            self._send(collector, list(self._folding.rest()))
            if collector.finish(max(0.1, deadline_s - time.monotonic())):
                self._note(Sent(spot=self._read))
        except (OSError, ValueError) as error:
            _LOG.warning("audit-not-sent: %s", error)
        finally:
            collector.close()
            self._collector = None

    def close(self) -> None:
        """End the connection; what does not count as taken is sent again."""
        if self._collector is not None:
            self._collector.close()
            self._collector = None

    def _pass_on(self, collector: Collector) -> bool:
        """Read on and send what is complete; tells whether there was anything to read."""
        room = max(0, self._settings.most_unconfirmed - len(self._waiting))
        read = 0
        for record, behind in islice(records(self._folder, self._read), min(room, _AT_ONCE)):
            complete = list(self._folding.take(record, self._read))
            self._read = behind
            self._send(collector, complete)
            read += 1
        if not read and room:  # without room, folds wait as the records do
            self._send(collector, list(self._folding.due(datetime.now(UTC))))
        return read > 0

    def _send(self, collector: Collector, complete: list[Folded]) -> None:
        frames = [frame for folded in complete for frame in self._frames(folded)]
        if frames:
            collector.send(frames)
            spot = self._folding.safe(self._read)
            self._waiting.append(_Waiting(time.monotonic(), spot))

    def _frames(self, folded: Folded) -> Iterator[bytes]:
        for message in messages_of(folded, self._source):
            yield framed(
                xml_of(message, self._source),
                host=self._source.host,
                sent_utc=datetime.now(UTC),
                number=folded.last,
                failed=message.outcome is not Outcome.SUCCESS,
            )

    def _confirm(self, collector: Collector) -> None:
        """Move the place behind what counts as taken."""
        now_s = time.monotonic()
        due_s = now_s - self._settings.confirm_s
        spot = None
        if self._waiting and self._waiting[0].sent_s <= due_s:
            if collector.taken():
                while self._waiting and self._waiting[0].sent_s <= due_s:
                    spot = self._waiting.popleft().spot
            elif self._waiting[0].sent_s <= due_s - self._settings.timeout_s:
                raise TimeoutError("timed out: the collector takes nothing more")
        if not self._waiting:
            spot = self._folding.safe(self._read)
        news = spot is not None and (spot > self._sent.spot or self._sent.failures)
        if spot is not None and news and now_s >= self._noted_s:
            self._noted_s = now_s + _NOTE_EVERY_S
            self._note(Sent(spot=spot))

    def _failed(self, error: Exception) -> None:
        """Begin again from the place noted last, after a wait."""
        self.close()
        failures = self._sent.failures + 1
        longest_s = self._settings.retry_max_s
        pause_s = min(longest_s, self._settings.retry_first_s * 2.0 ** min(failures - 1, 20))
        self._again_s = time.monotonic() + pause_s
        _LOG.warning("audit-not-sent failures=%d again_s=%.0f: %s", failures, pause_s, error)
        self._waiting.clear()
        self._folding = Folding(self._settings)
        self._read = self._sent.spot
        why = str(error) or type(error).__name__
        self._sent = Sent(spot=self._sent.spot, failures=failures, why=why)
        try:
            self._note(self._sent)
        except OSError as refused:
            _LOG.warning("audit-place-not-noted: %s", refused)

    def _note(self, sent: Sent) -> None:
        said = {"spot": list(sent.spot), "failures": sent.failures, "why": sent.why}
        replace(self._state / "sent", json.dumps(said) + "\n")
        self._sent = sent
