"""``pacs move``: have a peer send to another AE."""

import click

from pacs.association.message import Operation
from pacs.cli.home import Home, pass_home
from pacs.cli.output import emit, json_option
from pacs.cli.peers import (
    Named,
    Question,
    call,
    concluded,
    followed,
    identifier_of,
    peer_argument,
    question_options,
)
from pacs.core.identifiers import is_ae_title


@click.command()
@peer_argument
@question_options
@click.option("--to", "destination", required=True, help="AE title, as the peer knows it.")
@json_option
@pass_home
def move(
    home: Home,
    *,
    named: Named,
    question: Question,
    destination: str,
    as_json: bool,
) -> int:
    """Have a peer, AE or AE@host:port, send to another AE.

    Only unique keys select, the one of the level and those above it:
    StudyInstanceUID=1.2.3. The list printed is of what could not be sent, as
    far as the peer names it.
    """
    from scu.models import PATIENT_ROOT_MOVE, STUDY_ROOT_MOVE
    from scu.move import move as retrieve

    if not is_ae_title(destination):
        raise click.UsageError(f"{destination!r} is not an AE title")
    identifier = identifier_of(question.level, question.keys)
    calling = call(home, named)
    responses = retrieve(
        calling.peer,
        identifier,
        destination,
        ae_title=calling.ae_title,
        bounds=calling.bounds,
        sop_class_uid=PATIENT_ROOT_MOVE if question.patient_root else STUDY_ROOT_MOVE,
    )
    last = followed(responses, f"move to {destination}")
    failed = [{"failed_sop_instance_uid": uid} for uid in last.progress.failed_sop_instance_uids]
    emit(failed, ["failed_sop_instance_uid"], as_json=as_json)
    return concluded(Operation.C_MOVE, last)
