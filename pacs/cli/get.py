"""``pacs get``: from a peer into a folder."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from pacs.association.landing import Received
from pacs.association.message import Operation
from pacs.cli.find import ask
from pacs.cli.home import Home, pass_home
from pacs.cli.output import emit, json_option
from pacs.cli.peers import (
    Call,
    Named,
    Question,
    call,
    concluded,
    followed,
    identifier_of,
    peer_argument,
    question_options,
)
from pacs.core.attributes import Level
from pacs.core.caller import admin
from pacs.core.errors import CapacityExhausted, PeerRefused
from pacs.observe.audit import record_once

COLUMNS = ["sop_instance_uid", "sop_class_uid", "transfer_syntax_uid", "path"]


@click.command()
@peer_argument
@question_options
@click.option(
    "--to",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the files; each is named by its SOP Instance UID.",
)
@click.option(
    "--sop-class",
    "sop_classes",
    multiple=True,
    metavar="UID",
    help="SOP Class to take; asked of the peer when not given, else the common ones.",
)
@json_option
@pass_home
def get(
    home: Home,
    *,
    named: Named,
    question: Question,
    folder: Path,
    sop_classes: tuple[str, ...],
    as_json: bool,
) -> int:
    """Retrieve from a peer, AE or AE@host:port, to files.

    Only unique keys select, the one of the level and those above it:
    StudyInstanceUID=1.2.3
    """
    from scu.get import COMMON_SOP_CLASSES, Arrivals
    from scu.get import get as retrieve
    from scu.models import PATIENT_ROOT_GET, STUDY_ROOT_GET

    identifier = identifier_of(question.level, question.keys)
    calling = call(home, named)
    _made(folder)
    received: list[Received] = []
    arrivals = Arrivals(
        folder=folder,
        received=received.append,
        max_instance_bytes=calling.settings.storage.max_instance_bytes,
        sop_class_uids=sop_classes or _classes(calling, question.keys) or COMMON_SOP_CLASSES,
    )
    responses = retrieve(
        calling.peer,
        identifier,
        arrivals,
        ae_title=calling.ae_title,
        bounds=calling.bounds,
        sop_class_uid=PATIENT_ROOT_GET if question.patient_root else STUDY_ROOT_GET,
    )
    try:
        last = followed(responses, "get")
    finally:
        record_once(
            home.path,
            calling.settings.audit,
            "files-received",
            admin("get"),
            peer=calling.peer.ae_title,
            files=len(received),
        )
        emit([asdict(one) for one in received], COLUMNS, as_json=as_json)
    return concluded(Operation.C_GET, last)


def _made(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise CapacityExhausted(f"{folder} cannot be made: {failure.strerror}") from failure


def _classes(calling: Call, keys: Mapping[str, str]) -> Sequence[str]:
    """Ask which SOP Classes will come, so that each is taken in every syntax without conversion.

    Few classes leave room for a presentation context per syntax (PS3.8 Section
    9.3.3.2). A peer that does not say, or does not take queries, gives none.
    """
    narrowing = {one: keys[one] for one in ("PatientID", "StudyInstanceUID") if keys.get(one)}
    if not narrowing:
        return ()
    question = identifier_of(Level.STUDY, {"StudyInstanceUID": "", "SOPClassesInStudy": ""})
    question.update(identifier_of(Level.STUDY, narrowing))
    try:
        rows = list(ask(calling, question, patient_root=False).rows())
    except PeerRefused:
        return ()
    listed = [str(row.get("SOPClassesInStudy", "")) for row in rows]
    if not all(listed):
        return ()  # a study of which nothing is known may hold anything
    return sorted({uid for one in listed for uid in one.split("\\")})
