"""Which audit message a record becomes. PS3.15 A.5.3.

A pure function from what the trail says to what a collector is told. The trail
holds no patient data, so a message names studies and never whose they are: where
the standard demands the patient, it says ``unknown``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from pacs.observe.audit import codes
from pacs.observe.audit.codes import Code
from pacs.observe.audit.fold import Folded
from pacs.observe.audit.message import Action, Message, Outcome, Participant, Source, Subject
from pacs.observe.audit.query import query_of

UNKNOWN = "unknown"
MOST_STUDIES = 32
"""Studies that one message names: collectors take messages of 32 KiB (PS3.15 A.6)."""
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
NOT_AUTHORIZED = "0124"
_STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"

Builder = Callable[[Folded, Source], Iterator[Message]]


def messages_of(folded: Folded, source: Source) -> Iterator[Message]:
    """Make the messages of one record, or of many folded into one; none for what stays local."""
    if folded.text("status") == NOT_AUTHORIZED:
        yield _alert(folded, source, codes.RESTRICTED_FUNCTION, Outcome.MINOR)
    else:
        yield from _builder(folded.event)(folded, source)


def _builder(event: str) -> Builder:
    found = _BUILDERS.get(event)
    if found is not None:
        return found
    if event.endswith("-refused"):
        return _refused
    for prefix, kind in _CONFIGURATION.items():
        if event.startswith(prefix):
            return lambda folded, source: iter([_alert(folded, source, kind)])
    if event.startswith(("C-", "N-")):
        return _local
    return lambda folded, source: iter([_alert(folded, source, codes.RESTRICTED_FUNCTION)])


# --- what happens to instances ----------------------------------------------------------


def _stored(folded: Folded, source: Source) -> Iterator[Message]:
    """A.5.3.7, received by us."""
    yield _message(
        folded,
        codes.INSTANCES_TRANSFERRED,
        Action.CREATE,
        (_caller(folded, codes.SOURCE), _ourselves(source, codes.DESTINATION)),
        subjects=_studies(folded, dict(folded.sop_classes), life_cycle="1"),
        outcome=_outcome(folded),
    )


def _begun(folded: Folded, source: Source) -> Iterator[Message]:
    """A.5.3.3."""
    yield _message(
        folded,
        codes.BEGIN_TRANSFERRING,
        Action.EXECUTE,
        _delivering(folded, source),
        subjects=_studies(folded, {}),
    )


def _retrieved(folded: Folded, source: Source) -> Iterator[Message]:
    """A.5.3.7, sent by us; one message for what was sent, one for what was not."""
    sent, failed = folded.number("completed") + folded.number("warning"), folded.number("failed")
    if sent or not failed:
        yield _transferred(folded, source, sent, _outcome(folded) if not sent else Outcome.SUCCESS)
    if failed:
        yield _transferred(folded, source, failed, Outcome.MINOR)


def _transferred(folded: Folded, source: Source, count: int, outcome: Outcome) -> Message:
    return _message(
        folded,
        codes.INSTANCES_TRANSFERRED,
        Action.READ,
        _delivering(folded, source),
        subjects=_studies(folded, {}, life_cycle="6", count=count),
        outcome=outcome,
    )


def _delivering(folded: Folded, source: Source) -> tuple[Participant, ...]:
    """We send; to the caller itself, or to another for the caller."""
    destination = folded.text("destination") or folded.text("peer")
    if not destination or destination == folded.text("ae_title"):
        return (_ourselves(source, codes.SOURCE), _caller(folded, codes.DESTINATION))
    return (
        _ourselves(source, codes.SOURCE),
        _node(destination, codes.DESTINATION),
        _caller(folded),
    )


def _forwarded(folded: Folded, source: Source) -> Iterator[Message]:
    """A.5.3.7, sent by us unasked."""
    for name, outcome in (("sent", Outcome.SUCCESS), ("refused", Outcome.MINOR)):
        unknown = folded.number("unknown") if name == "refused" else 0
        if count := folded.number(name) + unknown:
            yield _transferred(folded, source, count, outcome)


def _exported(folded: Folded, _: Source) -> Iterator[Message]:
    """A.5.3.5: to files, out of the archive's hands."""
    media = Participant(
        user_id=folded.text("folder") or UNKNOWN,
        roles=(codes.DESTINATION_MEDIA,),
        media=codes.MEDIA_URI,
    )
    yield _message(
        folded,
        codes.EXPORT,
        Action.READ,
        (_caller(folded, codes.SOURCE), media),
        subjects=_studies(folded, {}, life_cycle="10", count=folded.number("files")),
        outcome=_outcome(folded),
    )


def _deleted(folded: Folded, _: Source) -> Iterator[Message]:
    """A.5.3.8 for a study; A.5.3.6 for less than one, or more."""
    whole = folded.text("level") == "STUDY"
    yield _message(
        folded,
        codes.STUDY_DELETED if whole else codes.INSTANCES_ACCESSED,
        Action.DELETE,
        (_caller(folded, requestor=True),),
        subjects=_studies(folded, {}, life_cycle="14", count=folded.number("count")),
    )


def _changed(action: Action) -> Builder:
    """A.5.3.6."""

    def build(folded: Folded, _: Source) -> Iterator[Message]:
        subjects = _studies(folded, {}, count=folded.number("count"))
        people = (_caller(folded, requestor=True),)
        yield _message(folded, codes.INSTANCES_ACCESSED, action, people, subjects=subjects)

    return build


def _queried(folded: Folded, source: Source) -> Iterator[Message]:
    """A.5.3.10. The query's Data Set says which keys it had; of their values only UIDs and the level."""
    asking = (_caller(folded, codes.SOURCE), _ourselves(source, codes.DESTINATION))
    if folded.event == "poll":
        asking = (
            _ourselves(source, codes.SOURCE, requestor=True),
            _node(folded.text("peer"), codes.DESTINATION),
        )
    subject = Subject(
        id=folded.text("sop_class_uid") or _STUDY_ROOT_FIND,
        id_type=codes.SOP_CLASS_UID,
        type_code="2",
        role="3",
        query=query_of(folded.text("level"), _texts(folded, "study"), _texts(folded, "keys")),
        details=(("TransferSyntax", EXPLICIT_LITTLE_ENDIAN), _records(folded)),
    )
    yield _message(
        folded,
        codes.QUERY,
        Action.EXECUTE,
        asking,
        subjects=(subject,),
        outcome=_outcome(folded),
    )


# --- people, machines and the trail itself ----------------------------------------------


def _activity(kind: Code) -> Builder:
    """A.5.3.1."""

    def build(folded: Folded, source: Source) -> Iterator[Message]:
        started = (_ourselves(source, codes.APPLICATION),)
        yield _message(folded, codes.APPLICATION_ACTIVITY, Action.EXECUTE, started, types=(kind,))

    return build


def _log_used(folded: Folded, source: Source) -> Iterator[Message]:
    """A.5.3.2. What was found damaged is an alert."""
    if folded.number("damages"):
        yield _alert(folded, source, codes.OBJECT_SECURITY_CHANGED, Outcome.SERIOUS)
        return
    log = Subject(
        id=f"file://{source.host}/audit",
        id_type=codes.URI,
        type_code="2",
        role="13",
        name="Security Audit Log",
        details=(_records(folded),),
    )
    people = (_caller(folded, requestor=True),)
    yield _message(folded, codes.AUDIT_LOG_USED, Action.READ, people, subjects=(log,))


def _associated(folded: Folded, source: Source) -> Iterator[Message]:
    """A.5.3.12, where somebody has said who they are; an association alone is no event of A.5.3."""
    if folded.text("user"):
        yield _login(folded, source, Outcome.SUCCESS)


def _refused(folded: Folded, source: Source) -> Iterator[Message]:
    """A.5.3.11, and A.5.3.12 where a user was claimed."""
    yield _alert(folded, source, codes.NODE_AUTHENTICATION, Outcome.MINOR)
    if folded.text("user"):
        yield _login(folded, source, Outcome.MINOR)


def _login(folded: Folded, source: Source, outcome: Outcome) -> Message:
    person = Participant(
        user_id=folded.text("user"),
        alternative_user_id=_titled(_calling(folded)),
        user_name=folded.text("subscriber"),
        requestor=True,
        address=folded.text("address") or UNKNOWN,
    )
    return _message(
        folded,
        codes.USER_AUTHENTICATION,
        Action.EXECUTE,
        (person, _ourselves(source)),
        types=(codes.LOGIN,),
        outcome=outcome,
    )


def _kept(kind: Code, outcome: Outcome) -> Builder:
    """A.5.3.11 about the trail itself."""
    return lambda folded, source: iter([_alert(folded, source, kind, outcome)])


def _local(_: Folded, __: Source) -> Iterator[Message]:
    """Nothing that A.5.3 has a message for."""
    return iter(())


def _alert(
    folded: Folded, source: Source, kind: Code, outcome: Outcome = Outcome.SUCCESS
) -> Message:
    """A.5.3.11."""
    said = sorted(name for name in folded.record if name not in _COMMON)
    told = "; ".join(f"{name}={folded.text(name)}" for name in said)
    subject = Subject(
        id=folded.text("address") or source.host,
        id_type=codes.NODE_ID,
        type_code="2",
        details=(
            ("Alert Description", f"{folded.event}: {told}"),
            ("Count", str(folded.count)),
            _records(folded),
        ),
    )
    return _message(
        folded,
        codes.SECURITY_ALERT,
        Action.EXECUTE,
        (_ourselves(source, requestor=True), _caller(folded, requestor=False)),
        types=(kind,),
        subjects=(subject,),
        outcome=outcome,
    )


# --- parts -------------------------------------------------------------------------------


def _message(
    folded: Folded,
    event: Code,
    action: Action,
    participants: tuple[Participant, ...],
    *,
    types: tuple[Code, ...] = (),
    subjects: tuple[Subject, ...] = (),
    outcome: Outcome = Outcome.SUCCESS,
) -> Message:
    failed = outcome is not Outcome.SUCCESS
    return Message(
        event=event,
        action=action,
        time_utc=folded.ended_utc,
        outcome=outcome,
        types=types,
        description=(folded.text("status") or folded.text("answer")) if failed else "",
        participants=participants,
        subjects=subjects,
    )


def _outcome(folded: Folded) -> Outcome:
    return Outcome.MINOR if folded.text("outcome") in ("failure", "abandoned") else Outcome.SUCCESS


def _calling(folded: Folded) -> str:
    return folded.text("ae_title") or folded.text("calling_ae_title")


def _caller(folded: Folded, *roles: Code, requestor: bool = True) -> Participant:
    """Who asked; for the command line its command."""
    ae_title = _calling(folded)
    return Participant(
        user_id=folded.text("user") or ae_title or folded.text("subscriber") or UNKNOWN,
        alternative_user_id=_titled(ae_title),
        user_name=folded.text("subscriber"),
        requestor=requestor,
        roles=roles,
        address=folded.text("address"),
    )


def _ourselves(source: Source, *roles: Code, requestor: bool = False) -> Participant:
    return Participant(
        user_id=source.ae_title,
        alternative_user_id=_titled(source.ae_title),
        requestor=requestor,
        roles=roles,
        address=source.host,
    )


def _node(ae_title: str, *roles: Code) -> Participant:
    return Participant(user_id=ae_title, alternative_user_id=_titled(ae_title), roles=roles)


def _titled(ae_title: str) -> str:
    """A.5.2.2: how AE titles stand in AlternativeUserID."""
    return f"AETITLES={ae_title}" if ae_title else ""


def _studies(
    folded: Folded, sop_classes: Mapping[str, int], *, life_cycle: str = "", count: int = 0
) -> tuple[Subject, ...]:
    """The studies a record names, and their patient, of whom the trail knows nothing."""
    details = [_records(folded)]
    if total := count or sum(sop_classes.values()):
        details.append(("NumberOfInstances", str(total)))
    studies = [
        Subject(
            id=uid,
            id_type=codes.STUDY_INSTANCE_UID,
            type_code="2",
            role="3",
            life_cycle=life_cycle,
            details=tuple(details),
            sop_classes=sop_classes,
        )
        for uid in _texts(folded, "study")[:MOST_STUDIES] or [UNKNOWN]
    ]
    patient = Subject(id=UNKNOWN, id_type=codes.PATIENT_NUMBER, type_code="1", role="1")
    return (*studies, patient)


def _texts(folded: Folded, name: str) -> Sequence[str]:
    value = folded.record.get(name)
    if isinstance(value, list):
        return [str(one) for one in value]
    return [value] if isinstance(value, str) and value else []


def _records(folded: Folded) -> tuple[str, str]:
    """Which records of the trail a message speaks of: who gets one twice can tell."""
    return ("SpoolRecords", f"{folded.first}-{folded.last}")


_COMMON = frozenset(
    {"n", "time", "event", "hash", "subscriber", "ae_title", "association", "address"}
)

_BUILDERS: Mapping[str, Builder] = {
    "started": _activity(codes.APPLICATION_START),
    "stopped": _activity(codes.APPLICATION_STOP),
    "workers-started": _activity(codes.APPLICATION_START),
    "workers-stopped": _activity(codes.APPLICATION_STOP),
    "association": _associated,
    "C-STORE": _stored,
    "C-FIND": _queried,
    "retrieve-begun": _begun,
    "C-MOVE": _retrieved,
    "C-GET": _retrieved,
    "instances-forwarded": _forwarded,
    "files-sent": _forwarded,
    "files-received": _exported,
    "poll": _queried,
    "deleted": _deleted,
    "purged": _changed(Action.DELETE),
    "restored": _changed(Action.UPDATE),
    "conflict-settled": _changed(Action.UPDATE),
    "re-encoded": _changed(Action.UPDATE),
    "verified": _changed(Action.READ),
    "reindexed": _changed(Action.READ),
    "form-damaged": _changed(Action.UPDATE),
    "event-report": _local,
    "commitment-report": _local,
    "forms-removed": _local,
    "audit-read": _log_used,
    "audit-verified": _log_used,
    "audit-begun": _kept(codes.RECORDING_STARTED, Outcome.SUCCESS),
    "audit-missed": _kept(codes.RECORDING_STOPPED, Outcome.SERIOUS),
    "audit-lost": _kept(codes.RECORDING_STOPPED, Outcome.SERIOUS),
    "audit-torn": _kept(codes.RECORDING_STOPPED, Outcome.MINOR),
    "audit-foreign": _kept(codes.OBJECT_SECURITY_CHANGED, Outcome.SERIOUS),
    "audit-broken": _kept(codes.OBJECT_SECURITY_CHANGED, Outcome.SERIOUS),
}

_CONFIGURATION: Mapping[str, Code] = {
    "peer-": codes.NETWORK_CONFIGURATION,
    "route-": codes.NETWORK_CONFIGURATION,
    "poll-": codes.NETWORK_CONFIGURATION,
    "subscriber-": codes.SECURITY_CONFIGURATION,
    "contract-": codes.SECURITY_CONFIGURATION,
    "agreement-": codes.SECURITY_CONFIGURATION,
    "tls-": codes.SECURITY_CONFIGURATION,
    "user-": codes.USER_SECURITY_CHANGED,
}
"""Changes of what is allowed, by the first word of their event."""
