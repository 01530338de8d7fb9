"""Workitems made for tests, and the peers that ask for them, do them and watch them."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt

from tests.archive import Archive
from tests.pynetdicom_hold import hold
from tests.reporting import EXPLICIT, IMPLICIT

PUSH, WATCH, PULL, EVENT, QUERY = (f"1.2.840.10008.5.1.4.34.6.{one}" for one in range(1, 6))
GLOBAL, FILTERED = "1.2.840.10008.5.1.4.34.5", "1.2.840.10008.5.1.4.34.5.1"
STATE, CANCEL, PROGRESS, STATUS, ASSIGNED = 1, 2, 3, 4, 5
PATIENCE_S = 60.0


def code(value: str, meaning: str = "A meaning", scheme: str = "99TEST") -> Dataset:
    """Make a code."""
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = value, scheme, meaning
    return made


def scheduled(**values: Any) -> Dataset:
    """Make what N-CREATE sends: everything PS3.4 Table CC.2.5-3 asks for, most of it empty."""
    made = Dataset()
    made.TransactionUID = ""
    made.ProcedureStepState = "SCHEDULED"
    made.ScheduledProcedureStepPriority = "MEDIUM"
    made.ProcedureStepLabel = "Smooth it"
    made.WorklistLabel = "Processing"
    made.ScheduledProcessingParametersSequence = []
    made.ScheduledStationNameCodeSequence = [code("STATION1")]
    made.ScheduledStationClassCodeSequence = []
    made.ScheduledStationGeographicLocationCodeSequence = []
    made.ScheduledProcedureStepStartDateTime = "20260102030405"
    made.ScheduledWorkitemCodeSequence = [code("110005", "Interpretation", "DCM")]
    made.CommentsOnTheScheduledProcedureStep = ""
    made.InputReadinessState = "READY"
    made.InputInformationSequence = []
    made.StudyInstanceUID = "1.2.3"
    made.PatientName = "DOE^JANE"
    made.PatientID = "P1"
    made.IssuerOfPatientID = ""
    made.IssuerOfPatientIDQualifiersSequence = []
    made.OtherPatientIDsSequence = []
    made.PatientBirthDate = ""
    made.PatientSex = ""
    made.AdmissionID = ""
    made.IssuerOfAdmissionIDSequence = []
    made.AdmittingDiagnosesDescription = ""
    made.AdmittingDiagnosesCodeSequence = []
    made.ReferencedRequestSequence = []
    made.ProcedureStepProgressInformationSequence = []
    made.UnifiedProcedureStepPerformedProcedureSequence = []
    for keyword, value in values.items():
        if value is None:
            delattr(made, keyword)
        else:
            setattr(made, keyword, value)
    return made


def performed() -> Dataset:
    """Make what a performer sets before it completes a workitem."""
    item = Dataset()
    item.PerformedStationNameCodeSequence = [code("STATION1")]
    item.PerformedProcedureStepStartDateTime = "20260102030405"
    item.PerformedWorkitemCodeSequence = [code("110005", "Interpretation", "DCM")]
    item.PerformedProcedureStepEndDateTime = "20260102030505"
    item.OutputInformationSequence = []
    made = Dataset()
    made.UnifiedProcedureStepPerformedProcedureSequence = [item]
    return made


def progress(percent: str = "50", **values: Any) -> Dataset:
    """Make what a performer sets on its way."""
    item = Dataset()
    item.ProcedureStepProgress = percent
    for keyword, value in values.items():
        setattr(item, keyword, value)
    made = Dataset()
    made.ProcedureStepProgressInformationSequence = [item]
    return made


def discontinued() -> Dataset:
    """Make what a performer sets before it cancels a workitem."""
    return progress(
        "50", ProcedureStepDiscontinuationReasonCodeSequence=[code("110501", "Broken", "DCM")]
    )


def key(**values: Any) -> Dataset:
    """Make an item, or a key of one."""
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


# --- peers --------------------------------------------------------------------------------


class Told:
    """What a watcher was told: event type, workitem and information, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[int, str, Dataset]] = []
        self._came = threading.Condition()

    def __call__(self, event: Any) -> tuple[int, None]:
        request = event.request
        assert request.AffectedSOPClassUID == PUSH
        with self._came:
            uid = str(request.AffectedSOPInstanceUID)
            self.events.append((event.event_type, uid, event.event_information))
            self._came.notify_all()
        return 0x0000, None

    def of(self, uid: str, count: int) -> list[tuple[int, str]]:
        """Wait for so many events of a workitem; give each with its state, if it says one."""
        with self._came:
            enough = self._came.wait_for(lambda: len(self._about(uid)) >= count, PATIENCE_S)
        assert enough, self._about(uid)
        return [(kind, str(told.get("ProcedureStepState", ""))) for kind, told in self._about(uid)]

    def last(self, uid: str, kind: int) -> Dataset:
        return [told for of, told in self._about(uid) if of == kind][-1]

    def _about(self, uid: str) -> list[tuple[int, Dataset]]:
        return [(kind, told) for kind, of, told in self.events if of == uid]


class Peer:
    """One AE of the requesting side, on an association of its own."""

    def __init__(self, association: Any, ae_title: str, came: list[Any]) -> None:
        self.association, self.ae_title, self._came = association, ae_title, came

    @property
    def answer(self) -> Dataset:
        """The last command set that came: pynetdicom hides most of it."""
        command: Dataset = self._came[-1]
        return command

    def create(self, data_set: Dataset | None = None, uid: str | None = None) -> tuple[Any, Any]:
        made = scheduled() if data_set is None else data_set
        return self.association.send_n_create(made, PUSH, uid)

    def created(self, **values: Any) -> str:
        uid = str(generate_uid())
        status, _ = self.create(scheduled(**values), uid)
        assert status.Status == 0x0000
        return uid

    def act(self, action: int, uid: str, context: str, **values: Any) -> int:
        information = Dataset()
        for keyword, value in values.items():
            setattr(information, keyword, value)
        answer, _ = self.association.send_n_action(information, action, PUSH, uid, meta_uid=context)
        return int(answer.Status)

    def become(self, state: str, uid: str, transaction: str) -> int:
        return self.act(1, uid, PULL, ProcedureStepState=state, TransactionUID=transaction)

    def modify(self, uid: str, data_set: Dataset, transaction: str | None) -> Any:
        if transaction is not None:
            data_set.TransactionUID = transaction
        answer, _ = self.association.send_n_set(data_set, PUSH, uid, meta_uid=PULL)
        return answer

    def get(self, uid: str, *keywords: str, context: str = WATCH) -> tuple[int, Any]:
        answer, found = self.association.send_n_get(list(keywords), PUSH, uid, meta_uid=context)
        return int(answer.Status), found

    def state(self, uid: str) -> str:
        return str(self.get(uid, "ProcedureStepState")[1].ProcedureStepState)

    def ask_cancel(self, uid: str, context: str = PUSH, **values: Any) -> int:
        # Without any information pynetdicom announces a Data Set, and then sends none.
        return self.act(2, uid, context, **(values or {"ReasonForCancellation": "Not needed"}))

    def subscribe(self, uid: str, *, lock: str = "FALSE", ae: str = "", **keys: Any) -> int:
        to = ae or self.ae_title
        return self.act(3, uid, WATCH, ReceivingAE=to, DeletionLock=lock, **keys)

    def unsubscribe(self, uid: str, ae: str = "") -> int:
        return self.act(4, uid, WATCH, ReceivingAE=ae or self.ae_title)

    def suspend(self, uid: str) -> int:
        return self.act(5, uid, WATCH, ReceivingAE=self.ae_title)

    def find(self, context: str = PULL, **keys: Any) -> tuple[int, list[Dataset]]:
        identifier = Dataset()
        identifier.SOPInstanceUID = None
        for keyword, value in keys.items():
            setattr(identifier, keyword, value)
        *pending, (last, _) = list(self.association.send_c_find(identifier, context))
        return int(last.Status), [one for _, one in pending]

    def found(self, **keys: Any) -> set[str]:
        status, answers = self.find(**keys)
        assert status == 0x0000
        return {str(one.SOPInstanceUID) for one in answers}


@contextmanager
def peer(
    archive: Archive,
    ae_title: str,
    *contexts: str,
    told: Told | None = None,
    syntaxes: Sequence[str] = (EXPLICIT, IMPLICIT),
) -> Iterator[Peer]:
    """Associate; with ``told`` a second association waits for events under the same AE title."""
    came: list[Any] = []
    with ExitStack() as stack:
        for wanted, handlers in (
            (contexts or (PUSH, PULL, WATCH, QUERY), []),
            *([((EVENT,), [(evt.EVT_N_EVENT_REPORT, told)])] if told else []),
        ):
            entity = AE(ae_title)
            for one in wanted:
                entity.add_requested_context(one, list(syntaxes))
            made = entity.associate("127.0.0.1", archive.port, evt_handlers=handlers)
            assert made.is_established
            if not handlers:
                hold(made)
                made.bind(evt.EVT_DIMSE_RECV, lambda one: came.append(one.message.command_set))
                asking = made
            stack.callback(made.release)
        yield Peer(asking, ae_title, came)
