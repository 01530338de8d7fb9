"""What the audit trail is told of a request beside its outcome: which studies, which keys, how many.

Never a value that could be a patient's: of a query the level, the tags of its
keys and Study Instance UIDs; of an answer its counters.
"""

import re
from collections.abc import Iterator
from itertools import islice

from pydicom.dataset import Dataset

from pacs.association.message import Operation, Request, Response

RETRIEVALS = frozenset({Operation.C_MOVE, Operation.C_GET})
MOST_STUDIES = 32
MOST_KEYS = 64
_LEVEL = re.compile(r"[A-Z]{1,16}\Z")
_UID = re.compile(r"[0-9.]{1,64}\Z")
_ASKING = RETRIEVALS | {Operation.C_FIND}


def asked(request: Request) -> dict[str, object]:
    """What the request names."""
    if request.operation not in _ASKING or request.identifier is None:
        return {}
    told: dict[str, object] = {}
    level = str(request.identifier.get("QueryRetrieveLevel", ""))
    if _LEVEL.match(level):
        told["level"] = level
    if studies := list(islice(_studies(request.identifier), MOST_STUDIES)):
        told["study"] = studies
    if request.operation is Operation.C_FIND:
        told["keys"] = [f"{int(tag):08X}" for tag in list(request.identifier.keys())[:MOST_KEYS]]
    if request.operation is Operation.C_MOVE:
        told["destination"] = str(request.fields.get("MoveDestination", "")).strip()
    return told


def _studies(identifier: Dataset) -> Iterator[str]:
    value = identifier.get("StudyInstanceUID")
    values = [value] if isinstance(value, str) else list(value or ())
    return (str(one) for one in values if _UID.match(str(one)))


def answered(response: Response | None) -> dict[str, object]:
    """What the last response says."""
    if response is None:
        return {}
    counted = {
        "completed": response.completed,
        "failed": response.failed,
        "warning": response.warning,
    }
    told: dict[str, object] = {name: count for name, count in counted.items() if count is not None}
    if response.study_instance_uid:
        told["study"] = response.study_instance_uid
    return told
