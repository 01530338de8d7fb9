"""Audit messages about instances: stored, asked for, delivered, deleted, changed. PS3.15 A.5.3."""

from collections.abc import Callable, Iterator

from pacs.observe.audit import codes
from pacs.observe.audit.fold import Folded
from pacs.observe.audit.message import Action, Message, Outcome, Participant, Source, Subject
from pacs.observe.audit.parts import (
    caller,
    message,
    node,
    ourselves,
    outcome_of,
    spool_records,
    studies,
    texts,
)
from pacs.observe.audit.query import query_of

EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"

Builder = Callable[[Folded, Source], Iterator[Message]]


def stored(folded: Folded, source: Source) -> Iterator[Message]:
    """A.5.3.7, received by us."""
    yield message(
        folded,
        codes.INSTANCES_TRANSFERRED,
        Action.CREATE,
        (caller(folded, codes.SOURCE), ourselves(source, codes.DESTINATION)),
        subjects=studies(folded, dict(folded.sop_classes), life_cycle="1"),
        outcome=outcome_of(folded),
    )


def begun(folded: Folded, source: Source) -> Iterator[Message]:
    """A.5.3.3."""
    yield message(
        folded,
        codes.BEGIN_TRANSFERRING,
        Action.EXECUTE,
        _delivering(folded, source),
        subjects=studies(folded, {}),
    )


def retrieved(folded: Folded, source: Source) -> Iterator[Message]:
    """A.5.3.7, sent by us; one message for what was sent, one for what was not."""
    sent, failed = folded.number("completed") + folded.number("warning"), folded.number("failed")
    if sent or not failed:
        yield _transferred(
            folded, source, sent, outcome_of(folded) if not sent else Outcome.SUCCESS
        )
    if failed:
        yield _transferred(folded, source, failed, Outcome.MINOR)


def _transferred(folded: Folded, source: Source, count: int, outcome: Outcome) -> Message:
    return message(
        folded,
        codes.INSTANCES_TRANSFERRED,
        Action.READ,
        _delivering(folded, source),
        subjects=studies(folded, {}, life_cycle="6", count=count),
        outcome=outcome,
    )


def _delivering(folded: Folded, source: Source) -> tuple[Participant, ...]:
    """We send; to the caller itself, or to another for the caller."""
    destination = folded.text("destination") or folded.text("peer")
    if not destination or destination == folded.text("ae_title"):
        return (ourselves(source, codes.SOURCE), caller(folded, codes.DESTINATION))
    return (
        ourselves(source, codes.SOURCE),
        node(destination, codes.DESTINATION),
        caller(folded),
    )


def forwarded(folded: Folded, source: Source) -> Iterator[Message]:
    """A.5.3.7, sent by us unasked."""
    for name, outcome in (("sent", Outcome.SUCCESS), ("refused", Outcome.MINOR)):
        unknown = folded.number("unknown") if name == "refused" else 0
        if count := folded.number(name) + unknown:
            yield _transferred(folded, source, count, outcome)


def exported(folded: Folded, _: Source) -> Iterator[Message]:
    """A.5.3.5: to files, out of the archive's hands."""
    media = Participant(
        user_id="files",
        roles=(codes.DESTINATION_MEDIA,),
        media=codes.MEDIA_URI,
    )
    yield message(
        folded,
        codes.EXPORT,
        Action.READ,
        (caller(folded, codes.SOURCE), media),
        subjects=studies(folded, {}, life_cycle="10", count=folded.number("files")),
        outcome=outcome_of(folded),
    )


def deleted(folded: Folded, _: Source) -> Iterator[Message]:
    """A.5.3.8 for a study; A.5.3.6 for less than one, or more."""
    whole = folded.text("level") == "STUDY"
    yield message(
        folded,
        codes.STUDY_DELETED if whole else codes.INSTANCES_ACCESSED,
        Action.DELETE,
        (caller(folded, requestor=True),),
        subjects=studies(folded, {}, life_cycle="14", count=folded.number("count")),
    )


def changed(action: Action) -> Builder:
    """A.5.3.6."""

    def build(folded: Folded, _: Source) -> Iterator[Message]:
        subjects = studies(folded, {}, count=folded.number("count"))
        people = (caller(folded, requestor=True),)
        yield message(folded, codes.INSTANCES_ACCESSED, action, people, subjects=subjects)

    return build


def queried(folded: Folded, source: Source) -> Iterator[Message]:
    """A.5.3.10. The query's Data Set says which keys it had; of their values only UIDs and the level."""
    asking = (caller(folded, codes.SOURCE), ourselves(source, codes.DESTINATION))
    if folded.event == "poll":
        asking = (
            ourselves(source, codes.SOURCE, requestor=True),
            node(folded.text("peer"), codes.DESTINATION),
        )
    subject = Subject(
        id=folded.text("sop_class_uid") or _STUDY_ROOT_FIND,
        id_type=codes.SOP_CLASS_UID,
        type_code="2",
        role="3",
        query=query_of(folded.text("level"), texts(folded, "study"), texts(folded, "keys")),
        details=(("TransferSyntax", EXPLICIT_LITTLE_ENDIAN), spool_records(folded)),
    )
    yield message(
        folded,
        codes.QUERY,
        Action.EXECUTE,
        asking,
        subjects=(subject,),
        outcome=outcome_of(folded),
    )
