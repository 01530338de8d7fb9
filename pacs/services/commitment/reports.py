"""What a peer reports of a transaction, judged against what it was asked. PS3.4 Section J.3.3.

Owns what counts as committed: an instance that was asked for, that the report
names as referenced under the SOP Class it was asked with, and not as failed.
Everything else has failed. Whoever reports must be the AE that was asked.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydicom.dataset import Dataset

from pacs.core.caller import Caller
from pacs.core.commitment import (
    NOT_MENTIONED,
    WELL_KNOWN_INSTANCE,
    CommitmentRows,
    Outcome,
    Reference,
    TransactionUID,
)
from pacs.core.errors import EventInvalid, EventTypeUnknown, PacsError, TransactionUnknown
from pacs.core.identifiers import SOPClassUID, SOPInstanceUID, is_uid
from pacs.core.ports import AuditTrail

LOGGER = logging.getLogger("pacs.commitment")

ALL_COMMITTED: Final = 1
FAILURES_EXIST: Final = 2
"""Event Type IDs, PS3.4 Table J.3-2."""

_PROCESSING_FAILURE: Final = 0x0110
_CLASS_INSTANCE_CONFLICT: Final = 0x0119
"""Failure Reasons, PS3.3 Section C.14.1.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventReport:
    """One N-EVENT-REPORT as it came; an empty ``sop_instance_uid`` was not given."""

    event_type_id: int
    sop_instance_uid: str = ""
    information: Dataset | None = field(default=None, repr=False)


class Reports:
    """Takes reports from whoever was asked. For any thread and process."""

    def __init__(self, rows: CommitmentRows, audit: AuditTrail) -> None:
        self._rows = rows
        self._audit = audit

    def take(self, caller: Caller, report: EventReport) -> None:
        """Note one report, durably.

        Raises ``EventTypeUnknown``, ``EventInvalid``, ``TransactionUnknown`` or ``ReportContradicts``.
        """
        if report.event_type_id not in (ALL_COMMITTED, FAILURES_EXIST):
            raise EventTypeUnknown
        if report.sop_instance_uid not in ("", WELL_KNOWN_INSTANCE):
            raise TransactionUnknown("another SOP Instance than the well-known one")
        if report.information is None:
            raise EventInvalid("no Event Information")
        information = report.information
        uid = TransactionUID(str(information.get("TransactionUID") or ""))
        if not is_uid(uid):
            raise EventInvalid("no Transaction UID")
        asked = 0

        def judge(references: Sequence[Reference]) -> Outcome:
            nonlocal asked
            asked = len(references)
            return judged(references, information)

        try:
            outcome = self._rows.report(uid, caller.ae_title, judge)
        except PacsError as failure:
            self._audit.record("commitment-report-refused", caller, why=type(failure).__name__)
            raise
        LOGGER.info("commitment-reported peer=%s failed=%d", caller.ae_title, len(outcome.failed))
        self._audit.record(
            "commitment-report",
            caller,
            transaction=uid,
            committed=asked - len(outcome.failed),
            failed=len(outcome.failed),
        )


def judged(asked: Sequence[Reference], information: Dataset) -> Outcome:
    """Tell what became of what was asked; what the report says of other instances is nothing to us."""
    failed = {uid: _reason(item) for _, uid, item in _referenced(information, "FailedSOPSequence")}
    committed = {uid: of for of, uid, _ in _referenced(information, "ReferencedSOPSequence")}
    outcome: dict[SOPInstanceUID, int] = {}
    for sop_class_uid, uid in asked:
        if uid in failed:
            outcome[uid] = failed[uid]
        elif uid not in committed:
            outcome[uid] = NOT_MENTIONED
        elif committed[uid] != sop_class_uid:
            outcome[uid] = _CLASS_INSTANCE_CONFLICT
    return Outcome(failed=outcome)


def _referenced(
    information: Dataset, keyword: str
) -> Iterator[tuple[SOPClassUID, SOPInstanceUID, Dataset]]:
    items = information.get(keyword)
    for item in items if isinstance(items, Sequence) else ():
        if isinstance(item, Dataset):
            of = SOPClassUID(str(item.get("ReferencedSOPClassUID") or ""))
            yield of, SOPInstanceUID(str(item.get("ReferencedSOPInstanceUID") or "")), item


def _reason(item: Dataset) -> int:
    """Failure Reason (0008,1197), Type 1: where it is missing something failed all the same."""
    value = item.get("FailureReason")
    return value if isinstance(value, int) and value else _PROCESSING_FAILURE
