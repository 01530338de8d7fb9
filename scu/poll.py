"""What a poll asks of a peer: C-FIND level by level, then C-MOVE or C-GET. PS3.4 Sections C.4.1 to C.4.3.

Owns the identifiers, in which the unique keys of all levels above stand (PS3.4
Section C.4.1.2.1), and what of the answers can be used: they are a stranger's,
so they are bounded, and nothing in them is taken for a UID that is none. It
refuses to decide what is fetched.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import date

from pydicom.dataset import Dataset

from config import settings
from pacs.association.message import Operation
from pacs.association.requested import Requested, RetrieveResponse
from pacs.association.requestor import Proposal, associate
from pacs.core.attributes import Level
from pacs.core.errors import InstanceUnreadable, PeerRefused, PeerUnreachable
from pacs.core.identifiers import (
    SeriesInstanceUID,
    SOPClassUID,
    SOPInstanceUID,
    StudyInstanceUID,
    is_uid,
)
from pacs.core.poll_ports import Expected, InstanceThere, Listed, StudyThere, Wanted
from pacs.core.ports import Receiver
from pacs.core.records import Peer
from scu.get import COMMON_SOP_CLASSES, TRANSFER_SYNTAXES, storage_proposals
from scu.modalities import classes_of
from scu.models import STUDY_ROOT_FIND, STUDY_ROOT_GET, STUDY_ROOT_MOVE, UNCOMPRESSED
from scu.status import meaning

SUCCESS = 0x0000
TOO_MANY = 0xA700
CANCELLED = 0xFE00
KEYS_IGNORED = 0xFF01
"""PS3.4 Table C.4-1."""
NOTHING_DONE = (0x0122, 0x0124, 0x0211)
"""PS3.7 Annex C: not supported, not authorized, not known. It has nothing to do with what was asked for."""
MORE_AFTER_CANCEL = 10_000
"""Answers a peer may still send after it was told to stop; then it is left."""

Query = Callable[[str, Dataset], Iterator[tuple[int, Dataset | None]]]


class PollSCU:
    """Opens associations with polled peers; implements ``pacs.core.poll_ports.PolledPeers``."""

    def __init__(
        self, *, ae_title: str, bounds: settings.Association, polling: settings.Poll
    ) -> None:
        self._ae_title = ae_title
        self._bounds = bounds
        self._polling = polling

    def asking(self, peer: Peer) -> AbstractContextManager["OpenPeer"]:
        """Open one that can ask."""
        return self._open(peer, [_proposal(STUDY_ROOT_FIND)], None)

    def moving(self, peer: Peer) -> AbstractContextManager["OpenPeer"]:
        """Open one on which ``fetch`` sends to our own AE title."""
        # Some archives want a C-FIND context beside it, though nothing is asked on it.
        return self._open(peer, [_proposal(STUDY_ROOT_MOVE), _proposal(STUDY_ROOT_FIND)], None)

    def getting(
        self, peer: Peer, expected: Expected, receiver: Receiver
    ) -> AbstractContextManager["OpenPeer"]:
        """Open one on which ``fetch`` brings what is ``expected``, the common classes where nothing is."""
        named = expected.sop_class_uids or classes_of(expected.modalities)
        classes = named or COMMON_SOP_CLASSES
        storage = storage_proposals(classes, TRANSFER_SYNTAXES)
        return self._open(peer, [_proposal(STUDY_ROOT_GET), *storage], receiver)

    @contextmanager
    def _open(
        self, peer: Peer, proposals: Sequence[Proposal], receiver: Receiver | None
    ) -> Iterator["OpenPeer"]:
        opening = associate(peer, proposals, ae_title=self._ae_title, bounds=self._bounds)
        with opening as requested:
            yield OpenPeer(requested, self._polling, self._ae_title, receiver)


class OpenPeer:
    """One association with a polled peer; implements ``pacs.core.poll_ports.PolledPeer``."""

    def __init__(
        self,
        requested: Requested,
        polling: settings.Poll,
        ae_title: str,
        receiver: Receiver | None,
    ) -> None:
        self._requested = requested
        self._polling = polling
        self._ae_title = ae_title
        self._receiver = receiver

    def studies(
        self, day: date, filters: Sequence[tuple[str, str]], *, hour: int | None = None
    ) -> Listed[StudyThere]:
        """Ask which studies have this Study Date, and a Study Time within ``hour`` where given."""
        asked = f"{day:%Y%m%d}"
        identifier = _identifier(
            Level.STUDY,
            StudyInstanceUID="",
            StudyDate=asked,
            StudyTime="" if hour is None else f"{hour:02}0000-{hour:02}5959.999999",
            NumberOfStudyRelatedInstances="",
            SOPClassesInStudy="",
            **dict(filters),
        )
        answers = _Answers(self._polling.max_studies)
        found: dict[StudyInstanceUID, StudyThere] = {}
        for answer in answers.of(self._requested, identifier):
            study = _study_of(answer, asked)
            if study is None:
                answers.odd += 1
            else:
                found.setdefault(study.study_instance_uid, study)
        if answers.status not in (SUCCESS, CANCELLED, TOO_MANY) or (
            answers.status == TOO_MANY and hour is not None
        ):
            raise _refused(Operation.C_FIND, answers.status)
        return Listed(
            there=tuple(found.values()),
            whole=answers.status == SUCCESS and not answers.cut,
            odd=answers.odd,
            ignored=answers.ignored,
        )

    def instances(self, study: StudyInstanceUID) -> Listed[InstanceThere]:
        """Ask for all instances of a study, series by series."""
        asked = _identifier(Level.SERIES, StudyInstanceUID=study, SeriesInstanceUID="", Modality="")
        answers = _Answers(self._polling.max_study_instances)
        series: dict[str, str] = {}
        for answer in answers.of(self._requested, asked):
            uid = _uid(answer, "SeriesInstanceUID")
            answers.odd += uid is None
            if uid is not None:
                series[uid] = _text(answer, "Modality")
        answers.require_success()
        whole, odd = not answers.cut, answers.odd
        found: dict[SOPInstanceUID, InstanceThere] = {}
        for one, modality in series.items():
            room = self._polling.max_study_instances - len(found)
            if room <= 0:
                whole = False
                break
            listed = self._of_series(study, SeriesInstanceUID(one), room)
            for each in listed.there:
                found.setdefault(each.sop_instance_uid, replace(each, modality=modality))
            whole, odd = whole and listed.whole, odd + listed.odd
        return Listed(there=tuple(found.values()), whole=whole, odd=odd)

    def _of_series(
        self, study: StudyInstanceUID, series: SeriesInstanceUID, most: int
    ) -> Listed[InstanceThere]:
        asked = _identifier(
            Level.IMAGE,
            StudyInstanceUID=study,
            SeriesInstanceUID=series,
            SOPInstanceUID="",
            SOPClassUID="",
        )
        answers = _Answers(most)
        found: dict[str, InstanceThere] = {}
        for answer in answers.of(self._requested, asked):
            uid, sop_class = _uid(answer, "SOPInstanceUID"), _uid(answer, "SOPClassUID")
            if uid is None:
                answers.odd += 1
                continue
            found[uid] = InstanceThere(
                series_instance_uid=series,
                sop_instance_uid=SOPInstanceUID(uid),
                sop_class_uid=None if sop_class is None else SOPClassUID(sop_class),
            )
        answers.require_success()
        return Listed(there=tuple(found.values()), whole=not answers.cut, odd=answers.odd)

    def fetch(self, wanted: Wanted, cancelled: Callable[[], bool]) -> str:
        """Have what is wanted sent to us; gives the peer's last words."""
        identifier = _wanted(wanted)
        if self._receiver is None:
            operation = Operation.C_MOVE
            responses = self._requested.move(STUDY_ROOT_MOVE, identifier, self._ae_title)
        else:
            operation = Operation.C_GET
            responses = self._requested.get(STUDY_ROOT_GET, identifier, self._receiver)
        try:
            last = self._followed(responses, cancelled)
        except InstanceUnreadable as failure:
            raise PeerUnreachable("its answer cannot be read") from failure
        counters = last.progress
        # A C-GET has no other association to fail: where it tried, the instances are the reason.
        tried = operation is Operation.C_GET and counters.failed > 0
        if last.status in NOTHING_DONE or (0xA700 <= last.status <= 0xA8FF and not tried):
            raise _refused(operation, last.status)
        said = f"{operation.value} 0x{last.status:04X}: {counters.completed} done"
        return f"{said}, {counters.failed} failed, {counters.warning} warnings"

    def _followed(
        self, responses: Iterator[RetrieveResponse], cancelled: Callable[[], bool]
    ) -> RetrieveResponse:
        """Give the last response. Raises ``PeerUnreachable`` when told to stop, or where nothing moves."""
        moved_s, last = time.monotonic(), next(responses)
        counters = last.progress
        while last.pending:
            if cancelled():
                raise PeerUnreachable("broken off: told to stop")
            last = next(responses)
            if last.progress != counters:
                counters, moved_s = last.progress, time.monotonic()
            elif time.monotonic() - moved_s > self._polling.stall_s:
                raise PeerUnreachable("broken off: its counters do not move")
        return last


class _Answers:
    """The answers to one query: at most so many are taken, then it is cancelled."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.taken = self.odd = 0
        self.status = SUCCESS
        self.cut = self.ignored = False

    def of(self, requested: Requested, identifier: Dataset) -> Iterator[Dataset]:
        """Ask, and give what may be used. Raises ``PeerRefused`` where it cannot be read."""
        try:
            for status, answer in requested.find(
                STUDY_ROOT_FIND, identifier, cancel_after=self._most + 1
            ):
                self.status = status
                self.ignored |= status == KEYS_IGNORED
                if answer is None:
                    continue
                self.taken += 1
                if self.taken <= self._most:
                    yield answer
                elif self.taken > self._most + MORE_AFTER_CANCEL:
                    raise PeerRefused("it does not stop to answer")
        except InstanceUnreadable as failure:
            raise PeerRefused("its answers cannot be read") from failure
        self.cut = self.taken > self._most

    def require_success(self) -> None:
        """Raise ``PeerRefused`` unless the query came to its end, or was ended by us."""
        if self.status != SUCCESS and not (self.cut and self.status == CANCELLED):
            raise _refused(Operation.C_FIND, self.status)


def _proposal(sop_class_uid: str) -> Proposal:
    return Proposal(sop_class_uid=sop_class_uid, transfer_syntax_uids=UNCOMPRESSED)


def _refused(operation: Operation, status: int) -> PeerRefused:
    words = meaning(operation, status) or "not successful"
    return PeerRefused(f"{operation.value} was answered 0x{status:04X} {words}")


def _identifier(level: Level, **keys: str) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level.value
    if not "".join(keys.values()).isascii():
        identifier.SpecificCharacterSet = "ISO_IR 192"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whether a value suits its VR is the peer's to say
        for keyword, value in keys.items():
            setattr(identifier, keyword, value or None)
    return identifier


def _wanted(wanted: Wanted) -> Dataset:
    """Name what is wanted and everything above it. PS3.4 Section C.4.2.1.4."""
    if wanted.series_instance_uid is None:
        return _identifier(Level.STUDY, StudyInstanceUID=wanted.study_instance_uid)
    above = {
        "StudyInstanceUID": wanted.study_instance_uid,
        "SeriesInstanceUID": wanted.series_instance_uid,
    }
    if not wanted.sop_instance_uids:
        return _identifier(Level.SERIES, **above)
    return _identifier(Level.IMAGE, **above, SOPInstanceUID="\\".join(wanted.sop_instance_uids))


def _study_of(answer: Dataset, asked: str) -> StudyThere | None:
    """Read one answer; ``None`` for what is no study of that date."""
    uid = _uid(answer, "StudyInstanceUID")
    said = _text(answer, "StudyDate").replace(".", "")
    if uid is None or said not in ("", asked):
        return None
    counted = _text(answer, "NumberOfStudyRelatedInstances")
    classes = _text(answer, "SOPClassesInStudy").split("\\")
    return StudyThere(
        study_instance_uid=StudyInstanceUID(uid),
        instances=int(counted) if counted.isascii() and counted.isdigit() else None,
        sop_class_uids=tuple(SOPClassUID(one.strip()) for one in classes if is_uid(one.strip())),
    )


def _uid(answer: Dataset, keyword: str) -> str | None:
    found = _text(answer, keyword)
    return found if is_uid(found) else None


def _text(answer: Dataset, keyword: str) -> str:
    try:
        value = answer.get(keyword)
        if value is None:
            return ""
        many = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else value
        return "\\".join(str(one) for one in many).strip(" \0")
    except Exception:  # noqa: BLE001 - pydicom raises whatever a stranger's values provoke
        return ""
