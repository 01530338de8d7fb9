"""The rows of the store and retrieve table: what is timed, and how each figure is proved right.

A figure exists only if the server held, or gave back, exactly what it was
sent; otherwise it is ``Wrong`` and counts for nothing.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import clients
from bench.dimse import Refused
from bench.measure import Watch
from bench.peers import Peer, Server
from bench.results import Results, Unit
from bench.studies import Study, image_studies

DISCARDING, KEEPING = "SINK", "KEEP"
"""AE titles of the two move destinations: one throws away, one keeps for comparison."""
MEMORY_ROW, CPU_ROW = "memory", "cpu"
CPU_OF = RETRIEVED = "store-ct-1"
ASSOCIATIONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many instances a run sends."""

    ct: int = 200
    mr: int = 200
    each_of_four: int = 60
    stock: int = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What one measurement may use besides the server."""

    studies: Mapping[str, Sequence[Study]]
    """Row → what it stores; a retrieve row fetches what ``store-ct-1`` stored."""
    scratch: Path
    """Where retrieved files go: memory where the machine has it, so that our disk is not timed."""
    kept: Path
    """Where the keeping destination writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    key: str
    title: str
    measure: Callable[[Server, Sequence[Study], Bench], float]
    """Do the work and check it; give instances per second."""
    retrieves: bool = False


def store(server: Server, studies: Sequence[Study], _: Bench) -> float:
    """Store with the tuned client."""
    return _rate(studies, clients.store_s(server, studies, stock=False))


def store_stock(server: Server, studies: Sequence[Study], _: Bench) -> float:
    """Store with the client as Debian ships it."""
    return _rate(studies, clients.store_s(server, studies, stock=True))


def get(server: Server, studies: Sequence[Study], bench: Bench) -> float:
    """Retrieve with C-GET; compare every Data Set."""
    (study,) = studies
    folder = bench.scratch / "got"
    try:
        taken_s = clients.get_s(server, study, folder)
        clients.check_same(study, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _rate(studies, taken_s)


def move(server: Server, studies: Sequence[Study], bench: Bench) -> float:
    """Time C-MOVE to a destination that discards; then, untimed, to one that keeps, and compare."""
    (study,) = studies
    taken_s = clients.move_s(server, study, DISCARDING)
    clients.move_s(server, study, KEEPING)
    try:
        clients.check_same(study, bench.kept)
    finally:
        for one in bench.kept.iterdir():
            one.unlink()
    return _rate(studies, taken_s)


ROWS = (
    Row(key="store-ct-1", title="C-STORE CT 512², 1 association", measure=store),
    Row(key="store-mr-1", title="C-STORE MR 256², 1 association", measure=store),
    Row(key="store-ct-4", title=f"C-STORE CT, {ASSOCIATIONS} associations", measure=store),
    Row(key="store-mr-4", title=f"C-STORE MR, {ASSOCIATIONS} associations", measure=store),
    Row(key="store-ct-stock", title="C-STORE CT, stock client (Nagle on)", measure=store_stock),
    Row(key="get-ct", title="C-GET CT study", measure=get, retrieves=True),
    Row(key="move-ct", title="C-MOVE CT study, destination discards", measure=move, retrieves=True),
)


def chosen(keys: Sequence[str]) -> list[Row]:
    """Choose rows, in the order of the table; what is to be retrieved must have been stored."""
    retrieved = any(one.retrieves and one.key in keys for one in ROWS)
    return [one for one in ROWS if one.key in keys or (retrieved and one.key == RETRIEVED)]


def make_studies(folder: Path, counts: Counts) -> dict[str, Sequence[Study]]:
    """Write what every row stores. The homes are fresh each round, so the rounds share it."""

    def made(key: str, modality: str, studies: int, instances: int) -> Sequence[Study]:
        return image_studies(folder / key, modality=modality, studies=studies, instances=instances)

    whole = {
        "store-ct-1": made("store-ct-1", "CT", 1, counts.ct),
        "store-mr-1": made("store-mr-1", "MR", 1, counts.mr),
        "store-ct-4": made("store-ct-4", "CT", ASSOCIATIONS, counts.each_of_four),
        "store-mr-4": made("store-mr-4", "MR", ASSOCIATIONS, counts.each_of_four),
        "store-ct-stock": made("store-ct-stock", "CT", 1, counts.stock),
    }
    return {**whole, "get-ct": whole["store-ct-1"], "move-ct": whole["store-ct-1"]}


def measure(row: Row, peer: Peer, server: Server, bench: Bench, results: Results) -> None:
    """Time one row at one server; note the figure with its cost, or what went wrong."""
    if row.retrieves and not peer.retrieves:
        return
    share = peer.most_instances // len(bench.studies[row.key])
    studies = [one.first(share) for one in bench.studies[row.key]]
    before = _files(server)
    os.sync()  # what the server before has left to the page cache is not this one's debt
    try:
        with Watch(server.pid) as watch:
            figure = row.measure(server, studies, bench)
        if not row.retrieves:
            _check(peer, server, studies, before)
    except (clients.Wrong, Refused, OSError) as error:
        results.failed(row.key, peer.name, str(error))
        return
    results.add(row.key, peer.name, figure)
    results.peak(MEMORY_ROW, peer.name, watch.cost.peak_bytes)
    if row.key == CPU_OF:
        results.add(CPU_ROW, peer.name, watch.cost.cpu_s * 1000 / _count(studies))


def _check(peer: Peer, server: Server, studies: Sequence[Study], before: int) -> None:
    """Count what was stored: by C-FIND, or the new files of a server that has none."""
    if peer.finds:
        for one in studies:
            clients.check_count(server, one)
    elif (count := _files(server) - before) != _count(studies):
        raise clients.Wrong(f"{count} files of {_count(studies)} instances")


def _files(server: Server) -> int:
    """Count the files of a writer; what an archive keeps is its own affair."""
    folder = server.folder / "received"
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0


def declare(results: Results, rows: Sequence[Row]) -> None:
    """Name the rows in the order of the table."""
    for row in rows:
        results.declare(row.key, row.title, Unit.INSTANCES_PER_S)
    results.declare(CPU_ROW, "CPU per 1,000 instances, C-STORE CT, 1 association", Unit.SECONDS)
    results.declare(MEMORY_ROW, "Peak memory over all rows above", Unit.BYTES)


def _count(studies: Sequence[Study]) -> int:
    return sum(len(one.files) for one in studies)


def _rate(studies: Sequence[Study], taken_s: float) -> float:
    return _count(studies) / taken_s
