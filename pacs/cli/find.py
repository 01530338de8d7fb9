"""``pacs find``: ask a peer what it holds."""

from collections.abc import Iterator, Mapping

import click
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from pacs.association.message import Operation
from pacs.cli import exits
from pacs.cli.home import Home, pass_home
from pacs.cli.output import emit, json_option, note
from pacs.cli.peers import (
    Call,
    Named,
    Question,
    call,
    code_of,
    identifier_of,
    peer_argument,
    question_options,
)

CANCELLED = 0xFE00


class Answers:
    """The matches of one query as rows, and the Status that ended them."""

    def __init__(self, responses: Iterator[tuple[int, Dataset | None]], limit: int | None) -> None:
        self._responses = responses
        self._limit = limit
        self.count = 0
        self.status = 0

    def rows(self) -> Iterator[Mapping[str, object]]:
        """Yield one row per match; a peer may send some more after it was told to stop."""
        for status, identifier in self._responses:
            self.status = status
            if identifier is None or (self._limit is not None and self.count >= self._limit):
                continue
            self.count += 1
            yield {_name(one): _value(one) for one in identifier}


@click.command()
@peer_argument
@question_options
@click.option("--limit", type=click.IntRange(min=1), help="Cancel after this many matches.")
@json_option
@pass_home
def find(
    home: Home,
    *,
    named: Named,
    question: Question,
    limit: int | None,
    as_json: bool,
) -> int:
    """Query a peer: AE or AE@host:port.

    KEYS match as the peer's rules say: PatientName='DOE*' StudyDate=20260101-
    A keyword alone asks for its value.
    """
    from pacs.services.ls import COLUMNS

    columns = dict.fromkeys((*COLUMNS[question.level], *question.keys), "")
    identifier = identifier_of(question.level, {**columns, **question.keys})
    calling = call(home, named)
    answers = ask(calling, identifier, patient_root=question.patient_root, limit=limit)
    emit(answers.rows(), list(columns), as_json=as_json)
    if limit is not None and answers.status == CANCELLED:
        note(f"stopped after {answers.count} matches")
        return exits.DONE
    return code_of(Operation.C_FIND, answers.status)


def ask(
    calling: Call, identifier: Dataset, *, patient_root: bool, limit: int | None = None
) -> Answers:
    """Begin a query; it runs while its rows are taken."""
    from scu.find import find as query
    from scu.models import PATIENT_ROOT_FIND, STUDY_ROOT_FIND

    responses = query(
        calling.peer,
        identifier,
        ae_title=calling.ae_title,
        bounds=calling.bounds,
        sop_class_uid=PATIENT_ROOT_FIND if patient_root else STUDY_ROOT_FIND,
        cancel_after=limit,
    )
    return Answers(responses, limit)


def _name(element: DataElement) -> str:
    return element.keyword or f"{element.tag.group:04X},{element.tag.element:04X}"


def _value(element: DataElement) -> object:
    """Text as ``pacs ls`` writes it; a sequence as the DICOM JSON of its items."""
    value = element.value
    if value is None:
        return ""
    if element.VR == "SQ":
        return [one.to_json_dict(suppress_invalid_tags=True) for one in value]
    return "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)
