"""Which audit message a record becomes. PS3.15 A.5.3.

A pure function from what the trail says to what a collector is told. The trail
holds no patient data, so a message names studies and never whose they are: where
the standard demands the patient, it says ``unknown``.
"""

from collections.abc import Iterator, Mapping

from pacs.observe.audit import codes
from pacs.observe.audit.codes import Code
from pacs.observe.audit.fold import Folded
from pacs.observe.audit.instances import (
    Builder,
    begun,
    changed,
    deleted,
    exported,
    forwarded,
    queried,
    retrieved,
    stored,
)
from pacs.observe.audit.message import Action, Message, Outcome, Participant, Source, Subject
from pacs.observe.audit.parts import (
    UNKNOWN,
    caller,
    calling,
    is_named,
    message,
    ourselves,
    spool_records,
    titled,
)

NOT_AUTHORIZED = "0124"


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
    if event.endswith(("-refused", "-throttled", "-cut")):
        return _refused
    for prefix, kind in _CONFIGURATION.items():
        if event.startswith(prefix):
            return lambda folded, source: iter([_alert(folded, source, kind)])
    if event.startswith(("C-", "N-")):
        return _local
    return lambda folded, source: iter([_alert(folded, source, codes.RESTRICTED_FUNCTION)])


# --- people, machines and the trail itself ----------------------------------------------


def _activity(kind: Code) -> Builder:
    """A.5.3.1."""

    def build(folded: Folded, source: Source) -> Iterator[Message]:
        started = (ourselves(source, codes.APPLICATION),)
        yield message(folded, codes.APPLICATION_ACTIVITY, Action.EXECUTE, started, types=(kind,))

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
        details=(spool_records(folded),),
    )
    people = (caller(folded, requestor=True),)
    yield message(folded, codes.AUDIT_LOG_USED, Action.READ, people, subjects=(log,))


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
        alternative_user_id=titled(calling(folded)),
        user_name=folded.text("subscriber"),
        requestor=True,
        address=folded.text("address") or UNKNOWN,
    )
    return message(
        folded,
        codes.USER_AUTHENTICATION,
        Action.EXECUTE,
        (person, ourselves(source)),
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
    known = [caller(folded, requestor=False)] if is_named(folded) else []
    told = "; ".join(f"{name}={folded.text(name)}" for name in said)
    subject = Subject(
        id=folded.text("address") or source.host,
        id_type=codes.NODE_ID,
        type_code="2",
        details=(
            ("Alert Description", f"{folded.event}: {told}"),
            ("Count", str(folded.count)),
            spool_records(folded),
        ),
    )
    return message(
        folded,
        codes.SECURITY_ALERT,
        Action.EXECUTE,
        (ourselves(source, requestor=True), *known),
        types=(kind,),
        subjects=(subject,),
        outcome=outcome,
    )


_COMMON = frozenset(
    {"n", "time", "event", "hash", "subscriber", "ae_title", "association", "address"}
)

_BUILDERS: Mapping[str, Builder] = {
    "started": _activity(codes.APPLICATION_START),
    "stopped": _activity(codes.APPLICATION_STOP),
    "workers-started": _activity(codes.APPLICATION_START),
    "workers-stopped": _activity(codes.APPLICATION_STOP),
    "association": _associated,
    "C-STORE": stored,
    "C-FIND": queried,
    "retrieve-begun": begun,
    "C-MOVE": retrieved,
    "C-GET": retrieved,
    "instances-forwarded": forwarded,
    "files-sent": forwarded,
    "files-received": exported,
    "poll": queried,
    "deleted": deleted,
    "purged": changed(Action.DELETE),
    "restored": changed(Action.UPDATE),
    "conflict-settled": changed(Action.UPDATE),
    "re-encoded": changed(Action.UPDATE),
    "verified": changed(Action.READ),
    "reindexed": changed(Action.READ),
    "form-damaged": changed(Action.UPDATE),
    "event-report": _local,
    "commitment-report": _local,
    "forms-removed": _local,
    "workitem": _local,
    "processing-asked": _local,
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
    "profile-": codes.NETWORK_CONFIGURATION,
    "poll-": codes.NETWORK_CONFIGURATION,
    "subscriber-": codes.SECURITY_CONFIGURATION,
    "contract-": codes.SECURITY_CONFIGURATION,
    "agreement-": codes.SECURITY_CONFIGURATION,
    "tls-": codes.SECURITY_CONFIGURATION,
    "user-": codes.USER_SECURITY_CHANGED,
}
"""Changes of what is allowed, by the first word of their event."""
