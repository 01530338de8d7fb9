"""Where profiles ask for work, and see what became of it: workitems. PS3.4 Annex CC.

Owns how a workitem of a profile is named and what is read of one. How one is made
of an order, and what it goes through, is for others.
"""

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

from pydicom.dataset import Dataset

from pacs.core.caller import Caller
from pacs.core.identifiers import Registrant, SOPInstanceUID
from pacs.core.processing import ProcessingOrder
from pacs.core.records import Header, Held
from pacs.core.workitems import WorkitemState, WorkitemUID


class Read(Protocol):
    """A workitem as its own performer reads it."""

    @property
    def state(self) -> WorkitemState: ...
    @property
    def registrant(self) -> Registrant: ...
    @property
    def transaction_uid(self) -> str: ...
    @property
    def data_set(self) -> Dataset: ...


class Workitems(Protocol):
    """What is asked of ``pacs.services.workitems``."""

    def create(self, caller: Caller, uid: str, data_set: Dataset) -> object: ...
    def read(self, uid: WorkitemUID) -> Read: ...


Compose = Callable[[ProcessingOrder, Sequence[Held], str], Dataset]
"""Makes the attributes of a workitem of an order, what it is done to and a label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What became of a workitem: its state, the instances it says it has made, and in which session.

    Whoever performs it says so; what of that is to be believed is not decided here.
    """

    state: WorkitemState
    registrant: Registrant
    session: str = field(repr=False)
    results: tuple[SOPInstanceUID, ...]


class Desk:
    """Asks for workitems in the name of profiles. Asking twice for the same is asking once."""

    def __init__(self, workitems: Workitems, compose: Compose, *, unknown: type[Exception]) -> None:
        """``unknown`` is what ``read`` raises where there is no such workitem."""
        self._workitems = workitems
        self._compose = compose
        self._unknown = unknown

    def ask(
        self,
        caller: Caller,
        uid: WorkitemUID,
        order: ProcessingOrder,
        inputs: Sequence[Held],
        label: str,
    ) -> bool:
        """Make a workitem; ``False`` where it is there already, whatever became of it since."""
        if self.seen(uid) is not None:
            return False
        self._workitems.create(caller, uid, self._compose(order, inputs, label))
        return True

    def seen(self, uid: WorkitemUID) -> Seen | None:
        """Look at a workitem; ``None`` where there is none."""
        with suppress(self._unknown):
            read = self._workitems.read(uid)
            return Seen(
                state=read.state,
                registrant=read.registrant,
                session=read.transaction_uid,
                results=tuple(_results(read.data_set)),
            )
        return None


def name_patient(workitem: Dataset, header: Header) -> None:
    """Say in a workitem whose images it is about, as the images do. PS3.4 Table CC.2.5-3."""
    workitem.PatientID = header.patient_id or None
    workitem.IssuerOfPatientID = header.issuer_of_patient_id or None
    for keyword in _PATIENT:
        setattr(workitem, keyword, header.values.get(keyword) or None)


_PATIENT: Final = ("PatientName", "PatientBirthDate", "PatientSex")


def workitem_uid(*parts: str) -> WorkitemUID:
    """Name a workitem after what makes it up: the same parts give the same UID. PS3.5 Annex B.2.

    >>> workitem_uid("MIP", "1.2") == workitem_uid("MIP", "1.2") != workitem_uid("MIP1", ".2")
    True
    """
    name = "\x00".join(f"{len(one)}:{one}" for one in parts)
    return WorkitemUID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}")


def _results(data_set: Dataset) -> Iterator[SOPInstanceUID]:
    """The instances of the Output Information Sequence (0040,4033). PS3.4 Table CC.2.5-3."""
    for performed in data_set.get("UnifiedProcedureStepPerformedProcedureSequence") or ():
        for output in performed.get("OutputInformationSequence") or ():
            for one in output.get("ReferencedSOPSequence") or ():
                yield SOPInstanceUID(str(one.ReferencedSOPInstanceUID))
