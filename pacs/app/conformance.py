"""The DICOM conformance statement, made from what is attached. PS3.2 Annex A, in brief.

Owns the tables and the order of the sections; the rules that no table can say
stand in ``conformance_text``. It is made with default settings, in a home of
its own that is gone afterwards, so it says the same on every machine.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from pydicom.charset import python_encoding
from pydicom.uid import UID

from config.load import Loaded
from config.settings import Settings
from config.template import describe
from pacs.app import conformance_text as text
from pacs.app.archive import open_archive
from pacs.app.extension import Extension
from pacs.app.home import initialize
from pacs.app.provided import service_classes
from pacs.association.admission import (
    CALLED_UNRECOGNIZED,
    CALLING_UNRECOGNIZED,
    CONGESTION,
    CONTEXT_UNSUPPORTED,
    IDENTITY_REFUSED,
    LIMIT_EXCEEDED,
    NOT_NOW,
)
from pacs.association.message import Offer, Operation
from pacs.association.negotiation import GROUPS
from pacs.core.attributes import UNIQUE_KEYS, Attribute, Level, attributes_of
from pacs.core.commitment import PUSH_MODEL
from pacs.core.conditions import COMPUTED
from pacs.core.errors import PacsError
from pacs.core.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from processing.datasets.syntaxes import COMPRESSED, UNCOMPRESSED
from scp.service_class import ServiceClass
from scp.status import COMMON, PROCESSING_FAILURE, STATUSES
from scu import get as scu_get
from scu import models
from scu.status import MEANINGS, meaning

LONG_LIST: Final = 20
"""SOP Classes of one service beyond this number stand in the annex."""

ASKED: Final = b"\x01" * 5
"""Application information that proposes everything PS3.4 Table C.5-1 knows."""

TABLES: Final = (
    "dicom",
    "association",
    "legitimacy",
    "storage",
    "parsing",
    "query",
    "retrieve",
    "identity",
    "commitment",
    "workitems",
)
"""The tables of pacs.toml that change what a peer sees."""

REJECTIONS: Final[Mapping[tuple[int, int, int], str]] = {
    IDENTITY_REFUSED: "the user identity is not accepted",
    CONTEXT_UNSUPPORTED: "Application Context Name is not that of DICOM",
    CALLING_UNRECOGNIZED: "no device or user of a contract that holds is known by this AE title and address",
    CALLED_UNRECOGNIZED: "the called AE title is neither ours nor that of an active processing profile, and `dicom.any_called_ae_title` is off",
    NOT_NOW: "the device has introduced itself and is not accepted yet",
    CONGESTION: "it cannot be decided for now who the peer is",
    LIMIT_EXCEEDED: "too many associations, in all or from this address",
}
MATCHING: Final[Mapping[str, str]] = {
    "PN": "single value, wild card; no case, no accents",
    "DA": "single value, range",
    "TM": "single value, range",
    "DT": "single value, range",
    "UI": "single value, list",
    "SQ": "sequence",
    **dict.fromkeys(("IS", "DS", "US"), "single value, as a number"),
    **dict.fromkeys(("AE", "CS", "LO", "SH"), "single value, list, wild card"),
    "AS": "single value",
    "LT": "single value, wild card",
}
"""VR to the kinds of matching; universal matching goes for all."""


def statement(extensions: Sequence[Extension] | None = None) -> str:
    """Write the statement in Markdown; ``extensions`` are those installed unless given."""
    with tempfile.TemporaryDirectory(prefix="pacs-conformance-") as folder:
        loaded = Loaded()
        initialize(Path(folder), loaded, extensions)
        with open_archive(Path(folder), loaded, extensions=extensions) as archive:
            return rendered(service_classes(archive), archive.settings)


def rendered(classes: Sequence[ServiceClass], settings: Settings) -> str:
    """Put the sections in the order of PS3.2 Annex A."""
    blocks = [
        text.OVERVIEW,
        _overview(classes),
        text.MODEL,
        text.ACCEPTANCE.format(association=settings.association),
        _table(("result / source / reason", "when"), _rejections()),
        text.PREFERENCE,
        _table(("our order", "transfer syntaxes"), _preference(settings)),
        *(block for one in classes for block in _service(one)),
        "#### Statuses common to all services",
        _table(("status", "meaning", "cause", "Error Comment"), _common()),
        text.USER,
        _table(("service", "SOP Classes", "transfer syntaxes proposed"), _used()),
        _table(("service", "status", "understood as"), _understood()),
        text.CONVERSION,
        _table(("stored transfer syntax", "UID"), ((_name(one), one) for one in _sorted())),
        text.NETWORK.format(
            class_uid=IMPLEMENTATION_CLASS_UID, version_name=IMPLEMENTATION_VERSION_NAME
        ),
        _table(("setting", "purpose", "accepts", "default"), _settings()),
        text.MEDIA,
        text.CHARACTERS,
        ", ".join(f"`{one}`" for one in sorted(filter(None, python_encoding))) + ".",
        text.SECURITY.format(legitimacy=settings.legitimacy),
        text.QUERY_KEYS,
        *_keys(),
        text.EXTENSIONS.format(retrieve=settings.retrieve, identity=settings.identity),
        text.DEVIATIONS,
        *_annex(classes),
    ]
    return "\n\n".join(one.strip("\n") for one in blocks) + "\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    cells = ([one.replace("|", "\\|") for one in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _name(uid: str) -> str:
    return str(UID(uid).name)


def _sorted() -> Iterator[str]:
    yield from sorted(COMPRESSED | UNCOMPRESSED, key=lambda one: [*map(int, one.split("."))])


def _status(number: int) -> str:
    return f"0x{number:04X}"


# --- what we provide ------------------------------------------------------------------


def _overview(classes: Sequence[ServiceClass]) -> str:
    rows = [
        (
            one.name,
            one.standard,
            ", ".join(operation.value for operation in one.operations),
            str(sum(len(offer.sop_classes) for offer in one.offers)),
        )
        for one in classes
    ]
    return _table(("service provided", "standard", "operations", "SOP Classes listed"), rows)


def _rejections() -> Iterator[Sequence[str]]:
    for answer, words in REJECTIONS.items():
        yield " / ".join(map(str, answer)), words


def _preference(settings: Settings) -> Iterator[Sequence[str]]:
    for number, group in enumerate(settings.dicom.transfer_syntax_order, 1):
        members = [_name(uid) for uid, of in GROUPS.items() if of == group]
        yield f"{number}. {group}", ", ".join(members) or "every other, private ones included"


def _service(one: ServiceClass) -> Iterator[str]:
    """The AE specification of one service class: offers, rights, statuses."""
    yield f"### {one.name} ({one.standard}) as {'SCU' if _reports_only(one) else 'SCP'}"
    for offer in one.offers:
        yield _offer(offer, one)
    rights = _table(
        ("operation", "right needed"),
        ((operation.value, one.rights[operation].value) for operation in one.operations),
    )
    yield rights
    if one.name in text.SERVICES:
        yield text.SERVICES[one.name]
    if one.statuses:
        yield _table(("status", "meaning", "cause", "Error Comment"), _statuses(one))


def _offer(offer: Offer, service_class: ServiceClass) -> str:
    count = len(offer.sop_classes)
    parts = []
    if count > LONG_LIST:
        parts.append(f"{count} SOP Classes, listed in Annex {service_class.name}.")
    else:
        rows = ((name, f"`{uid}`") for uid, name in offer.sop_classes.items())
        parts.append(_table(("SOP Class", "UID"), rows))
    if offer.any_other_class:
        parts.append(text.ANY_OTHER_CLASS)
    syntaxes = ", ".join(_name(uid) for uid in offer.transfer_syntaxes)
    parts.append(f"Transfer syntaxes accepted: {syntaxes or 'every one a peer proposes'}.")
    parts.append(_roles(offer, service_class))
    if offer.extended is not None:
        answer = ", ".join(str(byte) for byte in offer.extended(ASKED))
        parts.append(
            "SOP Class Extended Negotiation: application information of"
            f" {', '.join(map(str, ASKED))} is answered with {answer}."
        )
    return "\n\n".join(one.strip("\n") for one in parts)


def _reports_only(one: ServiceClass) -> bool:
    """Tell whether all that is taken are reports: then the peer is the SCP (PS3.7 Section 7.5)."""
    return set(one.operations) == {Operation.N_EVENT_REPORT}


def _roles(offer: Offer, one: ServiceClass) -> str:
    if _reports_only(one):
        return text.REPORTED_TO
    return text.BOTH_ROLES if offer.scu_role else "Role: SCP."


def _statuses(one: ServiceClass) -> Iterator[Sequence[str]]:
    for error, number in sorted(one.statuses.items(), key=lambda pair: pair[1]):
        words = one.meanings.get(number) or next(
            (found for of in one.operations if (found := _meaning(of, number))), "see the service"
        )
        yield _status(number), words, _cause(error), error.peer_comment


def _meaning(operation: Operation, number: int) -> str:
    found = meaning(operation, number) if operation in MEANINGS else ""
    return found or COMMON.get(number, "")


def _common() -> Iterator[Sequence[str]]:
    for error, number in STATUSES.items():
        yield _status(number), COMMON[number], _cause(error), error.peer_comment
    yield (
        _status(PROCESSING_FAILURE),
        COMMON[PROCESSING_FAILURE],
        "Whatever has no status of its own; the log says more.",
        PacsError.peer_comment,
    )


def _cause(error: type[PacsError]) -> str:
    return (error.__doc__ or "").partition("\n")[0]


# --- what we use ----------------------------------------------------------------------


def _used() -> Iterator[Sequence[str]]:
    uncompressed = ", ".join(_name(one) for one in models.UNCOMPRESSED)
    queries = {
        "Query": (models.PATIENT_ROOT_FIND, models.STUDY_ROOT_FIND),
        "Retrieve, C-MOVE": (models.PATIENT_ROOT_MOVE, models.STUDY_ROOT_MOVE),
        "Retrieve, C-GET": (models.PATIENT_ROOT_GET, models.STUDY_ROOT_GET),
    }
    yield "Verification", "Verification SOP Class", _name(models.IMPLICIT_VR_LITTLE_ENDIAN)
    yield "Storage", "that of each instance sent", f"the stored one; {uncompressed}"
    yield "Storage Commitment", _name(PUSH_MODEL), uncompressed
    for service, uids in queries.items():
        yield service, ", ".join(_name(one) for one in uids), uncompressed
    yield (
        "Storage, as SCP within our C-GET",
        "those the peer names in SOP Classes in Study or for each instance; in a poll those usual for "
        "the modalities it names; or: "
        + ", ".join(_name(one) for one in scu_get.COMMON_SOP_CLASSES),
        ", ".join(_name(one) for one in scu_get.TRANSFER_SYNTAXES),
    )


def _understood() -> Iterator[Sequence[str]]:
    for operation, meanings in MEANINGS.items():
        for low, high, words in meanings:
            shown = _status(low) if low == high else f"{_status(low)} to {_status(high)}"
            yield operation.value, shown, words


# --- keys, settings, annexes ----------------------------------------------------------


def _keys() -> Iterator[str]:
    for level in Level:
        rows = [_key(one) for one in attributes_of(level)]
        rows += [
            (_name_of(keyword), "", "", "computed from the index; see above")
            for keyword, of in COMPUTED.items()
            if of is level
        ]
        yield f"#### {level.value} level"
        yield _table(("attribute", "tag", "VR", "matching"), rows)


def _key(one: Attribute) -> Sequence[str]:
    unique = " (unique key)" if UNIQUE_KEYS[one.level] == one.keyword else ""
    tag = f"({one.tag >> 16:04X},{one.tag & 0xFFFF:04X})"
    return _name_of(one.keyword) + unique, tag, one.vr, MATCHING[one.vr]


def _name_of(keyword: str) -> str:
    return f"`{keyword}`"


def _settings() -> Iterator[Sequence[str]]:
    for one in describe():
        if one.table in TABLES:
            yield f"`{one.name}`", one.description, one.accepts, f"`{one.default}`"


def _annex(classes: Sequence[ServiceClass]) -> Iterator[str]:
    for one in classes:
        for offer in one.offers:
            if len(offer.sop_classes) > LONG_LIST:
                rows = sorted((name, f"`{uid}`") for uid, name in offer.sop_classes.items())
                yield f"## Annex {one.name}: SOP Classes"
                yield _table(("SOP Class", "UID"), rows)
