"""C-FIND at Study level, three shapes, against small archives; larger ones of ours are ``bench.index``'s.

An answer is timed on an open association and counted: a server whose count is
not what the studies say it must be has no figure.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.clients import Wrong, store_s
from bench.dimse import STUDY_ROOT_FIND, Client, Refused, identifier
from bench.peers import Peer, Server
from bench.results import Results, Unit, turns
from bench.studies import Listed, Study, query_archive

ASKED_PER_VISIT = 20
RETURNED = {
    "PatientName": "",
    "PatientID": "",
    "StudyDate": "",
    "StudyInstanceUID": "",
    "ModalitiesInStudy": "",
    "NumberOfStudyRelatedInstances": "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One kind of question."""

    key: str
    title: str
    keys: Callable[[Listed], Mapping[str, str]]
    """Make the question whose answer holds this study."""
    matches: Callable[[Listed, Listed], bool]
    """Tell whether the question made from the first matches the second."""


def _month(one: Listed) -> str:
    return one.date[:6]


SHAPES = (
    Shape(
        key="find-id",
        title="C-FIND by Patient ID",
        keys=lambda one: {"PatientID": one.patient_id},
        matches=lambda asked, one: asked.patient_id == one.patient_id,
    ),
    Shape(
        key="find-date",
        title="C-FIND by month and modality",
        keys=lambda one: {
            "StudyDate": f"{_month(one)}01-{_month(one)}28",
            "ModalitiesInStudy": one.modality,
        },
        matches=lambda asked, one: (_month(asked), asked.modality) == (_month(one), one.modality),
    ),
    Shape(
        key="find-name",
        title="C-FIND by name prefix",
        keys=lambda one: {"PatientName": f"{one.name.partition('^')[0]}*"},
        matches=lambda asked, one: asked.name.partition("^")[0] == one.name.partition("^")[0],
    ),
)


def declare(results: Results, studies: int) -> None:
    """Name the rows in the order of the table."""
    for shape in SHAPES:
        results.declare(shape.key, f"{shape.title}, {studies:,} studies", Unit.MILLISECONDS)


def run(
    folder: Path, peers: Sequence[Peer], results: Results, *, studies: int, rounds: int
) -> None:
    """Fill every server that answers C-FIND, then ask them in turn."""
    source = folder / "source"
    source.mkdir(parents=True)
    listed = query_archive(source, studies)
    with ExitStack() as stack:
        filled = list(_filled(stack, folder, peers, listed, results))
        for number in range(rounds + 1):
            results.begin(number)
            for shape in SHAPES:
                for peer, server, held in turns(filled, number):
                    _visit(shape, peer, server, held, results=results)


def _filled(
    stack: ExitStack,
    folder: Path,
    peers: Sequence[Peer],
    listed: Sequence[Listed],
    results: Results,
) -> Iterator[tuple[Peer, Server, Sequence[Listed]]]:
    for number, peer in enumerate(one for one in peers if one.finds):
        held = listed[: peer.most_studies]
        server = stack.enter_context(peer.start(folder / str(number), {}))
        files = tuple(one.file for one in held)
        everything = Study(study_instance_uid="", series_instance_uid="", files=files)
        try:
            store_s(server, [everything], stock=False)
        except Wrong as error:
            results.failed(SHAPES[0].key, peer.name, f"filling it: {error}")
        else:
            yield peer, server, held


def _visit(
    shape: Shape, peer: Peer, server: Server, held: Sequence[Listed], *, results: Results
) -> None:
    """Ask a server one shape of question for different studies; note the median time."""
    step = max(1, len(held) // ASKED_PER_VISIT)
    try:
        with Client(server.port, server.ae_title, STUDY_ROOT_FIND) as client:
            taken_s = [_ask_s(client, shape, one, held) for one in held[::step]]
    except (Wrong, Refused, OSError) as error:
        results.failed(shape.key, peer.name, str(error))
    else:
        results.add(shape.key, peer.name, statistics.median(taken_s) * 1000)


def _ask_s(client: Client, shape: Shape, asked: Listed, held: Sequence[Listed]) -> float:
    question = identifier(**{**RETURNED, **shape.keys(asked)})
    started = time.perf_counter()
    count = client.find(question)
    taken_s = time.perf_counter() - started
    expected = sum(shape.matches(asked, one) for one in held)
    if count != expected:
        raise Wrong(f"{count} matches instead of {expected}")
    return taken_s
