"""One audit message as PS3.15 A.5.1 has it, and its XML. Decides nothing about what is said when."""

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from xml.etree import ElementTree as ET

from pacs.observe.audit.codes import Code

APPLICATION_SERVER = "4"
"""AuditSourceTypeCode, PS3.15 A.5.1.2.1."""
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Action(Enum):
    """EventActionCode."""

    CREATE = "C"
    READ = "R"
    UPDATE = "U"
    DELETE = "D"
    EXECUTE = "E"


class Outcome(Enum):
    """EventOutcomeIndicator."""

    SUCCESS = "0"
    MINOR = "4"
    SERIOUS = "8"
    MAJOR = "12"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Who reports: AuditSourceID, AuditEnterpriseSiteID, and the AE title and host we are."""

    source_id: str
    site_id: str = ""
    ae_title: str
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """ActiveParticipant."""

    user_id: str
    alternative_user_id: str = ""
    user_name: str = ""
    requestor: bool = False
    roles: tuple[Code, ...] = ()
    address: str = ""
    media: Code | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """ParticipantObjectIdentification; ``name`` unless there is a ``query``.

    ``sop_classes`` maps a SOP Class UID to a number of instances.
    """

    id: str
    id_type: Code
    type_code: str
    role: str = ""
    life_cycle: str = ""
    name: str = ""
    query: bytes | None = None
    details: tuple[tuple[str, str], ...] = ()
    sop_classes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """AuditMessage, but for its source."""

    event: Code
    action: Action
    time_utc: datetime
    outcome: Outcome = Outcome.SUCCESS
    types: tuple[Code, ...] = ()
    description: str = ""
    participants: tuple[Participant, ...]
    subjects: tuple[Subject, ...] = ()


def xml_of(message: Message, source: Source) -> bytes:
    """Write a message in UTF-8, on one line, with a declaration."""
    root = ET.Element("AuditMessage")
    _event(root, message)
    for participant in message.participants:
        _participant(root, participant)
    named = {"AuditEnterpriseSiteID": source.site_id, "AuditSourceID": source.source_id}
    reported = _add(root, "AuditSourceIdentification", named)
    _add(reported, "AuditSourceTypeCode", {"csd-code": APPLICATION_SERVER})
    for subject in message.subjects:
        _subject(root, subject)
    declared = b'<?xml version="1.0" encoding="UTF-8"?>'
    return declared + ET.tostring(root, encoding="unicode").encode()


def _event(root: ET.Element, message: Message) -> None:
    event = _add(
        root,
        "EventIdentification",
        {
            "EventActionCode": message.action.value,
            "EventDateTime": message.time_utc.astimezone(UTC).isoformat(timespec="milliseconds"),
            "EventOutcomeIndicator": message.outcome.value,
        },
    )
    _coded(event, "EventID", [message.event])
    _coded(event, "EventTypeCode", message.types)
    if message.description:
        _add(event, "EventOutcomeDescription").text = _writable(message.description)


def _participant(root: ET.Element, one: Participant) -> None:
    element = _add(
        root,
        "ActiveParticipant",
        {
            "UserID": one.user_id or "unknown",
            "AlternativeUserID": one.alternative_user_id,
            "UserName": one.user_name,
            "UserIsRequestor": "true" if one.requestor else "false",
            "NetworkAccessPointID": one.address,
            "NetworkAccessPointTypeCode": _access_point(one.address),
        },
    )
    _coded(element, "RoleIDCode", one.roles)
    if one.media is not None:
        _coded(_add(element, "MediaIdentifier"), "MediaType", [one.media])


def _access_point(address: str) -> str:
    """NetworkAccessPointTypeCode: 2 for an IP address, 1 for a name."""
    if not address:
        return ""
    return "2" if re.fullmatch(r"[0-9.]+|[0-9A-Fa-f:.%]*:.*", address) else "1"


def _subject(root: ET.Element, one: Subject) -> None:
    element = _add(
        root,
        "ParticipantObjectIdentification",
        {
            "ParticipantObjectID": one.id or "unknown",
            "ParticipantObjectTypeCode": one.type_code,
            "ParticipantObjectTypeCodeRole": one.role,
            "ParticipantObjectDataLifeCycle": one.life_cycle,
        },
    )
    _coded(element, "ParticipantObjectIDTypeCode", [one.id_type])
    if one.query is not None:
        _add(element, "ParticipantObjectQuery").text = base64.b64encode(one.query).decode()
    else:
        _add(element, "ParticipantObjectName").text = _writable(one.name or one.id or "unknown")
    for kind, value in one.details:
        pair = {"type": kind, "value": base64.b64encode(value.encode()).decode()}
        _add(element, "ParticipantObjectDetail", pair)
    if one.sop_classes:
        described = _add(element, "ParticipantObjectDescription")
        for uid, count in sorted(one.sop_classes.items()):
            _add(described, "SOPClass", {"UID": uid, "NumberOfInstances": str(count)})


def _coded(parent: ET.Element, name: str, codes: Iterable[Code]) -> None:
    for code in codes:
        _add(
            parent,
            name,
            {
                "csd-code": code.value,
                "codeSystemName": code.system,
                "displayName": code.meaning,
                "originalText": code.meaning,
            },
        )


def _add(parent: ET.Element, name: str, attributes: Mapping[str, str] | None = None) -> ET.Element:
    """Add an element; an attribute without a value is left out."""
    given = {key: _writable(value) for key, value in (attributes or {}).items() if value}
    return ET.SubElement(parent, name, given)


def _writable(text: str) -> str:
    """What XML 1.0 can carry of a text: peers choose AE titles and user names."""
    return _UNWRITABLE.sub("\ufffd", text)
