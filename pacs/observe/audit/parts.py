"""What audit messages are made of: participants, studies, and what says which records they speak of.

PS3.15 A.5.2. The trail holds no patient data, so a patient is ``unknown``.
"""

from collections.abc import Mapping, Sequence

from pacs.observe.audit import codes
from pacs.observe.audit.codes import Code
from pacs.observe.audit.fold import Folded
from pacs.observe.audit.message import Action, Message, Outcome, Participant, Source, Subject

UNKNOWN = "unknown"
MOST_STUDIES = 32
"""Studies that one message names: collectors take messages of 32 KiB (PS3.15 A.6)."""


def message(
    folded: Folded,
    event: Code,
    action: Action,
    participants: tuple[Participant, ...],
    *,
    types: tuple[Code, ...] = (),
    subjects: tuple[Subject, ...] = (),
    outcome: Outcome = Outcome.SUCCESS,
) -> Message:
    """Make a message; what failed says with which status."""
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


def outcome_of(folded: Folded) -> Outcome:
    """Say how it ended; a warning is a success."""
    return Outcome.MINOR if folded.text("outcome") in ("failure", "abandoned") else Outcome.SUCCESS


def is_named(folded: Folded) -> bool:
    """Tell whether the record says anything of who asked."""
    names = ("user", "ae_title", "calling_ae_title", "subscriber", "address")
    return any(folded.text(name) for name in names)


def calling(folded: Folded) -> str:
    """Give the AE title of who asked, or claimed it."""
    return folded.text("ae_title") or folded.text("calling_ae_title")


def caller(folded: Folded, *roles: Code, requestor: bool = True) -> Participant:
    """Who asked; for the command line its command."""
    ae_title = calling(folded)
    return Participant(
        user_id=folded.text("user") or ae_title or folded.text("subscriber") or UNKNOWN,
        alternative_user_id=titled(ae_title),
        user_name=folded.text("subscriber"),
        requestor=requestor,
        roles=roles,
        address=folded.text("address"),
    )


def ourselves(source: Source, *roles: Code, requestor: bool = False) -> Participant:
    """Give the archive itself."""
    return Participant(
        user_id=source.ae_title,
        alternative_user_id=titled(source.ae_title),
        requestor=requestor,
        roles=roles,
        address=source.host,
    )


def node(ae_title: str, *roles: Code) -> Participant:
    """Give another node, by its AE title."""
    return Participant(user_id=ae_title, alternative_user_id=titled(ae_title), roles=roles)


def titled(ae_title: str) -> str:
    """A.5.2.2: how AE titles stand in AlternativeUserID."""
    return f"AETITLES={ae_title}" if ae_title else ""


def studies(
    folded: Folded, sop_classes: Mapping[str, int], *, life_cycle: str = "", count: int = 0
) -> tuple[Subject, ...]:
    """The studies a record names, and their patient, of whom the trail knows nothing."""
    details = [spool_records(folded)]
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
        for uid in texts(folded, "study")[:MOST_STUDIES] or [UNKNOWN]
    ]
    patient = Subject(id=UNKNOWN, id_type=codes.PATIENT_NUMBER, type_code="1", role="1")
    return (*studies, patient)


def texts(folded: Folded, name: str) -> Sequence[str]:
    """Give the values of a record that has none, one or several."""
    value = folded.record.get(name)
    if isinstance(value, list):
        return [str(one) for one in value]
    return [value] if isinstance(value, str) and value else []


def spool_records(folded: Folded) -> tuple[str, str]:
    """Which records of the trail a message speaks of: who gets one twice can tell."""
    return ("SpoolRecords", f"{folded.first}-{folded.last}")
