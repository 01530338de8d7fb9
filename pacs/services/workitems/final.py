"""What a workitem must have before it may end. PS3.4 Section CC.2.5.1.1 and Table CC.2.5-3.

A pure judgement of a Data Set, and the little the archive itself puts into one
that is cancelled.
"""

from datetime import datetime
from typing import Final

from pydicom.dataset import Dataset

from pacs.core.workitem_errors import FinalStateUnmet
from pacs.core.workitems import WorkitemState
from pacs.services.workitems.encoding import items_of, now_text, tag_of

PERFORMED: Final = tag_of("UnifiedProcedureStepPerformedProcedureSequence")
PROGRESS: Final = tag_of("ProcedureStepProgressInformationSequence")
_COMPLETED: Final = (  # code P
    "PerformedStationNameCodeSequence",
    "PerformedProcedureStepStartDateTime",
    "PerformedWorkitemCodeSequence",
    "PerformedProcedureStepEndDateTime",
)
_OUTPUT: Final = "OutputInformationSequence"
_DISCONTINUED: Final = "ProcedureStepDiscontinuationReasonCodeSequence"
CANCELLATION: Final = ("ReasonForCancellation", _DISCONTINUED)
"""What a request to cancel may say that a cancelled workitem says as well."""
UNSPECIFIED: Final = ("110513", "DCM", "Discontinued for unspecified reason")
"""PS3.16 CID 9300, for a request that gives no reason."""


def check(data_set: Dataset, state: WorkitemState) -> None:
    """Raise ``FinalStateUnmet`` where something is missing for that final state."""
    if state is WorkitemState.COMPLETED:
        _check_completed(data_set)
        return
    progress, *_ = items_of(data_set, "ProcedureStepProgressInformationSequence") or (Dataset(),)
    if not _has(progress, _DISCONTINUED):
        raise FinalStateUnmet(attributes=(tag_of(_DISCONTINUED),))


def _check_completed(data_set: Dataset) -> None:
    performed = items_of(data_set, "UnifiedProcedureStepPerformedProcedureSequence")
    if not performed:
        raise FinalStateUnmet(attributes=(PERFORMED,))
    item = performed[0]
    missing = [tag_of(one) for one in _COMPLETED if not _has(item, one)]
    if tag_of(_OUTPUT) not in item:  # may have no items, has to be there
        missing.append(tag_of(_OUTPUT))
    if missing:
        raise FinalStateUnmet(attributes=tuple(missing))


def _has(item: Dataset, keyword: str) -> bool:
    return tag_of(keyword) in item and not item[keyword].is_empty


def with_cancellation(data_set: Dataset, now: datetime, request: Dataset | None = None) -> None:
    """Put the time of a cancellation in, and with a ``request`` its reasons, unless they are there."""
    progress, *rest = items_of(data_set, "ProcedureStepProgressInformationSequence") or (Dataset(),)
    if not _has(progress, "ProcedureStepCancellationDateTime"):
        progress.ProcedureStepCancellationDateTime = now_text(now)
    if request is not None:
        for keyword in CANCELLATION:
            if _has(request, keyword):
                progress[keyword] = request[keyword]
        if not _has(progress, _DISCONTINUED):
            progress.ProcedureStepDiscontinuationReasonCodeSequence = [_unspecified()]
    data_set.ProcedureStepProgressInformationSequence = [progress, *rest]


def _unspecified() -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = UNSPECIFIED
    return code
