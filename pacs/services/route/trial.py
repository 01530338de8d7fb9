"""Trying routes on a file: which would fire, and what each condition says. Nothing is asked for."""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import tzinfo
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset as read_elements
from pydicom.tag import BaseTag
from pydicom.uid import ImplicitVRLittleEndian

from config.settings import Parsing
from pacs.core.errors import EntryConflicts, InstanceUnreadable
from pacs.core.identifiers import AETitle, Digest, ObjectId, TransferSyntaxUID
from pacs.core.records import Instance, Place, Provenance
from pacs.core.routing import Route
from pacs.services.header import read_dataset, read_header
from pacs.services.route.conditions import Conditions, conditions, verdict
from pacs.services.route.subjects import InFile

_PREAMBLE_BYTES = 128
_BROKEN = (AttributeError, EOFError, KeyError, TypeError, ValueError, struct.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one condition says. ``holds`` is ``None`` where one file cannot tell."""

    condition: str
    holds: bool | None
    seen: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one route would do. ``why`` says what else there is to say."""

    route: Route
    fires: bool | None
    destinations: tuple[AETitle, ...]
    findings: tuple[Finding, ...]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A file's instance, as if it had arrived, and all its attributes."""

    instance: Instance
    header: Dataset


def sample(path: Path, provenance: Provenance, parsing: Parsing) -> Sample:
    """Read a file, Part 10 or a bare Data Set. Raises as ingest does for what it cannot take."""
    with path.open("rb") as file:
        meta, offset = _meta(file.read(_PREAMBLE_BYTES + 4), path)
        syntax = TransferSyntaxUID(str(meta.get("TransferSyntaxUID") or ImplicitVRLittleEndian))
        size_bytes = path.stat().st_size - offset
        file.seek(offset)
        header = read_header(
            file,
            size_bytes,
            syntax,
            parsing,
            issuer_of_patient_id=provenance.issuer_of_patient_id,
        )
        file.seek(offset)
        everything = read_dataset(file, size_bytes, syntax, parsing)
    source = str(meta.get("SourceApplicationEntityTitle") or "").strip()
    instance = Instance(
        header=header,
        place=Place(name="", object_id=ObjectId(""), size_bytes=0, data_set_offset=offset),
        digest=Digest(""),
        transfer_syntax_uid=syntax,
        provenance=replace(
            provenance, source_ae_title=provenance.source_ae_title or AETitle(source)
        ),
    )
    return Sample(instance=instance, header=everything)


def _meta(start: bytes, path: Path) -> tuple[Dataset, int]:
    """Read the File Meta Information, and tell where the Data Set begins."""
    if start[_PREAMBLE_BYTES:] != b"DICM":
        return Dataset(), 0
    with path.open("rb") as file:
        file.seek(len(start))
        try:
            meta = read_elements(
                file, is_implicit_VR=False, is_little_endian=True, stop_when=_past_meta
            )
            _ = meta.get("TransferSyntaxUID"), meta.get("SourceApplicationEntityTitle")
        except _BROKEN as error:
            raise InstanceUnreadable("the File Meta Information cannot be read") from error
        return meta, file.tell()


def _past_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag.group != 2


def tried(routes: Iterable[Route], given: Sample, zone: tzinfo) -> Iterator[Trial]:
    """Tell for each route what it would do with a file."""
    subject = InFile(given.instance, given.header)
    for route in routes:
        try:
            yield _trial(conditions(route, zone), subject)
        except EntryConflicts as error:
            yield Trial(route=route, fires=False, destinations=(), findings=(), why=str(error))


def _trial(asked: Conditions, subject: InFile) -> Trial:
    route = asked.route
    findings = tuple(
        Finding(condition=one.said, holds=one.holds(subject), seen=one.seen(subject))
        for one in asked.all
    )
    fires = verdict(asked.all, subject)
    back = [one for one in route.destinations if one == subject.calling_ae_title]
    to = tuple(one for one in route.destinations if one not in back)
    why = []
    if not route.active:
        why.append("it is switched off")
    if back:
        why.append(f"nothing is sent back to {back[0]}, where it came from")
    if fires is None:
        why.append("other instances of the study decide")
    return Trial(
        route=route,
        fires=fires if route.active and to else False,
        destinations=to,
        findings=findings,
        why="; ".join(why),
    )
