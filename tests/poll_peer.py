"""A peer that is polled and behaves as badly as a test wants: pynetdicom as Query/Retrieve SCP."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_GET, C_MOVE

STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2."
_NEXT = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}


@dataclass
class FakePeer:
    """Holds images, remembers what it was asked, and fails where it is told to."""

    images: list[Dataset] = field(default_factory=list)
    counts: bool = True
    never: set[str] = field(default_factory=set)
    """SOP Instance UIDs it says nothing about and does not deliver."""
    unlisted: set[str] = field(default_factory=set)
    """SOP Instance UIDs it counts and does not list."""
    aborts_at: set[str] = field(default_factory=set)
    """SOP Instance UIDs at which it breaks the association off."""
    retrieve_status: int | None = None
    find_status: int | None = None
    most_answers: int | None = None
    pause_s: float = 0.0
    stalls: bool = False
    """Whether it says pending for ever, and sends nothing."""
    repeats: int = 1
    extra: Sequence[Dataset] = ()
    """Answers at every level that nobody should give."""
    our_port: int = 0
    sent: list[str] = field(default_factory=list)
    asked: list[Dataset] = field(default_factory=list)
    found: list[Dataset] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    """The Status of each C-STORE it sent by C-GET."""
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        asked = event.identifier
        with self.lock:
            self.found.append(asked)
        if self.find_status is not None:
            yield self.find_status, None
            return
        seen: set[str] = set()
        for one in [each for each in self.images if self._matches(each, asked)]:
            uid = str(one[_NEXT[asked.QueryRetrieveLevel]].value)
            if uid in seen or uid in self.unlisted:
                continue
            if self.most_answers is not None and len(seen) >= self.most_answers:
                break
            seen.add(uid)
            yield 0xFF00, self._answer(one, asked)
        for one in self.extra:
            yield 0xFF00, one

    def _matches(self, one: Dataset, asked: Dataset) -> bool:
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "StudyDate"):
            value = str(asked.get(keyword) or "")
            if value and one.get(keyword) != value:
                return False
        hours = str(asked.get("StudyTime") or "")
        if hours:
            first, _, last = hours.partition("-")
            return bool(first <= one.StudyTime <= last)
        return True

    def _answer(self, one: Dataset, asked: Dataset) -> Dataset:
        answer = Dataset()
        answer.QueryRetrieveLevel = asked.QueryRetrieveLevel
        for element in asked:
            if element.keyword in one:
                setattr(answer, element.keyword, one[element.keyword].value)
        if self.counts and "NumberOfStudyRelatedInstances" in asked:
            study = [each for each in self.images if each.StudyInstanceUID == one.StudyInstanceUID]
            answer.NumberOfStudyRelatedInstances = len(study)
        return answer

    def get(self, event: Any) -> Iterator[Any]:
        chosen = self._chosen(event.identifier)
        yield len(chosen) * self.repeats
        yield from self._sending(event, chosen * self.repeats)

    def move(self, event: Any) -> Iterator[Any]:
        chosen = self._chosen(event.identifier)
        yield ("127.0.0.1", self.our_port)
        yield len(chosen)
        yield from self._sending(event, chosen)

    def _chosen(self, asked: Dataset) -> list[Dataset]:
        with self.lock:
            self.asked.append(asked)
        chosen = self.images
        for keyword in _NEXT.values():
            wanted = asked.get(keyword)
            if wanted:
                named = {wanted} if isinstance(wanted, str) else set(wanted)
                chosen = [one for one in chosen if one[keyword].value in named]
        return [one for one in chosen if one.SOPInstanceUID not in self.never]

    def _sending(self, event: Any, chosen: Sequence[Dataset]) -> Iterator[Any]:
        if self.retrieve_status is not None:
            yield self.retrieve_status, None
            return
        while self.stalls:
            self._pending(event)
            time.sleep(0.05)
            if not event.assoc.is_established:
                return
        for one in chosen:
            time.sleep(self.pause_s)
            if one.SOPInstanceUID in self.aborts_at:
                event.assoc.abort()
                return
            with self.lock:
                self.sent.append(str(one.SOPInstanceUID))
            yield 0xFF00, one

    def _pending(self, event: Any) -> None:
        """Say that it goes on, with counters that stay."""
        response = (C_GET if "GET" in type(event.request).__name__ else C_MOVE)()
        response.MessageIDBeingRespondedTo = event.request.MessageID
        response.AffectedSOPClassUID = event.request.AffectedSOPClassUID
        response.Status = 0xFF00
        response.NumberOfRemainingSuboperations = 2
        response.NumberOfCompletedSuboperations = 0
        response.NumberOfFailedSuboperations = response.NumberOfWarningSuboperations = 0
        event.assoc.dimse.send_msg(response, event.context.context_id)

    def heard(self, event: Any) -> None:
        if type(event.message).__name__ == "C_STORE_RSP":
            self.answers.append(int(event.message.command_set.Status))

    def opened(self, event: Any) -> None:
        with self.lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)

    def closed(self, event: Any) -> None:
        with self.lock:
            self.at_once -= 1

    @contextmanager
    def listening(self, port: int = 0) -> Iterator[int]:
        """Serve until the block ends; gives the port."""
        entity = AE(ae_title="PEER")
        for model in "123":
            entity.add_supported_context(STUDY_ROOT + model)
        entity.add_supported_context(
            CTImageStorage, ExplicitVRLittleEndian, scu_role=True, scp_role=True
        )
        entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        server = entity.start_server(
            ("127.0.0.1", port),
            block=False,
            evt_handlers=[
                (evt.EVT_C_FIND, self.find),
                (evt.EVT_C_GET, self.get),
                (evt.EVT_C_MOVE, self.move),
                (evt.EVT_DIMSE_RECV, self.heard),
                (evt.EVT_ESTABLISHED, self.opened),
                (evt.EVT_CONN_CLOSE, self.closed),
            ],
        )
        assert server is not None and server.socket is not None
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
