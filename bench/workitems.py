"""Processing as a peer sees it: from N-CREATE to the result at its destination, and what a second node adds.

One archive as it comes, but that results are never reused. The projection is timed from the request
to the first byte-complete C-STORE at a destination of our own, in turn with the reference of
``bench.processing``, in the same run and on the same files. Nodes are ``pacs worker`` with one
process on a core of its own each, which share one workitem; they are timed by what the workitem says.
"""

import os
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from pynetdicom.association import Association

from bench import clients
from bench.peers import Server, ours
from bench.servers import LOOPBACK, STOP_TIMEOUT_S, WITHOUT_NAGLE, pacs
from bench.sink import Sink, sinking
from bench.studies import Study
from bench.synthetic import ROOT
from pacs.core.identifiers import AETitle
from pacs.core.processing import ProcessingOrder
from pacs.core.workitems import UPS_PULL, UPS_PUSH
from pacs.services.process.words import Input
from pacs.services.process.workitem import workitem_of

DESTINATION = AETitle("SINK")
BOUND_S = 300.0
LOOK_S = 0.1
NODES = (1, 2)
SETTINGS = {"PACS_PROCESS__REUSE_S": "0"}


@contextmanager
def asking(server: Server) -> Iterator[Association]:
    """Associate as who asks."""
    entity = AE("BENCH")
    for one in (UPS_PUSH, UPS_PULL):
        entity.add_requested_context(one, ExplicitVRLittleEndian)
    association = entity.associate(LOOPBACK, server.port, ae_title=server.ae_title)
    if not association.is_established:
        raise clients.Wrong("nobody takes workitems")
    try:
        yield association
    finally:
        association.release()


def create(association: Association, order: ProcessingOrder, study: Study) -> str:
    """Ask for an operation on one series; gives the workitem's UID."""
    asked = [
        Input(
            study_instance_uid=study.study_instance_uid,
            series_instance_uid=study.series_instance_uid,
        )
    ]
    uid = generate_uid(ROOT)
    status, _ = association.send_n_create(
        workitem_of(order, asked, label="bench"), UPS_PUSH, uid, meta_uid=UPS_PUSH
    )
    if status.get("Status") not in (0x0000, 0xB300):
        raise clients.Wrong(f"N-CREATE: {status}")
    return uid


def completed(association: Association, uid: str) -> None:
    """Wait until a workitem is COMPLETED, looking now and then."""
    until = time.monotonic() + BOUND_S
    while time.monotonic() < until:
        _, found = association.send_n_get([], UPS_PUSH, uid, meta_uid=UPS_PULL)
        state = "" if found is None else str(found.get("ProcedureStepState", ""))
        if state == "COMPLETED":
            return
        if state == "CANCELED":
            raise clients.Wrong("the workitem was cancelled")
        time.sleep(LOOK_S)
    raise clients.Wrong("the workitem did not end")


def study_of(files: Sequence[Path]) -> Study:
    """Name what was written as one series."""
    first = dcmread(files[0], stop_before_pixels=True)
    return Study(
        study_instance_uid=str(first.StudyInstanceUID),
        series_instance_uid=str(first.SeriesInstanceUID),
        files=tuple(files),
    )


# --- one projection, delivered -------------------------------------------------------------


def delivered_s(folder: Path, files: Sequence[Path], rounds: int) -> Iterator[float]:
    """Yield, round by round, the seconds from N-CREATE to the result at its destination.

    Between two rounds the caller may measure something else on the same machine.
    """
    study = study_of(files)
    order = ProcessingOrder(operation="mip", destinations=(DESTINATION,))
    with (
        sinking(ExplicitVRLittleEndian) as sink,
        ours(folder, {DESTINATION: sink.port}, SETTINGS) as server,
    ):
        clients.store_s(server, [study], stock=False)
        with asking(server) as association:
            for number in range(rounds + 1):
                began_s = time.monotonic()
                uid = create(association, order, study)
                taken_s = _arrived(sink, began_s)
                completed(association, uid)
                if number:  # the first warms up
                    yield taken_s


def _arrived(sink: Sink, began_s: float) -> float:
    while not sink.taken:
        if time.monotonic() - began_s > BOUND_S:
            raise clients.Wrong("nothing arrived")
        time.sleep(0.002)
    taken_s = time.monotonic() - began_s
    sink.taken.clear()
    return taken_s


# --- one workitem, several nodes -----------------------------------------------------------


def shared(folder: Path, files: Sequence[Path], operation: str, rounds: int) -> dict[int, float]:
    """Give images per second of one workitem with one node and with two; medians of the rounds."""
    study = study_of(files)
    rates: dict[int, list[float]] = {count: [] for count in NODES}
    with ours(folder, {}, {**SETTINGS, "PACS_JOBS__WORKERS": "0"}) as server:
        clients.store_s(server, [study], stock=False)
        for number in range(rounds + 1):
            for count in NODES:
                with nodes(folder / "home", count), asking(server) as association:
                    # So that who is slow to start is at work by then.
                    create_and_wait(association, "window", study)
                    taken_s = create_and_wait(association, operation, study)
                if number:
                    rates[count].append(len(files) / taken_s)
    return {count: statistics.median(some) for count, some in rates.items()}


def create_and_wait(association: Association, operation: str, study: Study) -> float:
    """Have something done and give the seconds that took, looking now and then."""
    began_s = time.monotonic()
    uid = create(association, ProcessingOrder(operation=operation), study)
    completed(association, uid)
    return time.monotonic() - began_s


@contextmanager
def nodes(home: Path, count: int) -> Iterator[None]:
    """Run so many nodes, each a worker process bound to a core of its own."""
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        for number in range(count):
            stack.enter_context(_node(home, cores[number % len(cores)]))
        yield


@contextmanager
def _node(home: Path, core: int) -> Iterator[None]:
    process = subprocess.Popen(
        ["taskset", "--cpu-list", str(core), *pacs("--home", home, "worker", "--processes", "1")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**WITHOUT_NAGLE, **SETTINGS},
    )
    ended = threading.Timer(BOUND_S, process.kill)
    ended.start()
    try:
        yield
    finally:
        ended.cancel()
        process.terminate()
        process.wait(STOP_TIMEOUT_S)
