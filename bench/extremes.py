"""Two things that are about bounds, not speed alone: one huge object, and hundreds of idle associations."""

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import clients
from bench.dimse import STUDY_ROOT_FIND, Client, Refused
from bench.measure import Watch, shared_fairly_bytes
from bench.peers import OURS, Peer, ours
from bench.results import Results, Unit
from bench.studies import multi_frame

MULTI_FRAME_RATE, MULTI_FRAME_MEMORY = "multi-frame-rate", "multi-frame-memory"
IDLE_CPU, IDLE_MEMORY = "idle-cpu", "idle-memory"
IDLE_ASSOCIATIONS = 500
SETTLE_S, WATCHED_S = 1.0, 5.0
MEGABYTE = 1_000_000
ROOM_FOR_IDLE = {
    f"PACS_ASSOCIATION__{name}": str(IDLE_ASSOCIATIONS + 100)
    for name in ("MAX_ASSOCIATIONS", "MAX_ASSOCIATIONS_PER_HOST", "MAX_CONNECTIONS")
}


def declare_multi_frame(results: Results, size_bytes: int) -> None:
    """Name the rows of the huge object."""
    title = f"{size_bytes >> 20:,} MiB multi-frame object"
    results.declare(MULTI_FRAME_RATE, f"C-STORE, {title}", Unit.MEGABYTES_PER_S)
    results.declare(MULTI_FRAME_MEMORY, f"Peak memory of a process, {title}", Unit.BYTES)


def receive_multi_frame(
    folder: Path, peers: Sequence[Peer], results: Results, *, size_bytes: int
) -> None:
    """Send one huge object to each server, once, on a fresh home."""
    source = folder / "source"
    source.mkdir(parents=True)
    study = multi_frame(source, size_bytes)
    results.begin(1)
    for number, peer in enumerate(one for one in peers if one.takes_huge):
        with peer.start(folder / str(number), {}) as server:
            os.sync()
            try:
                with Watch(server.pid) as watch:
                    taken_s = clients.store_s(server, [study], stock=False)
                if peer.finds:
                    clients.check_count(server, study)
                if peer.name == OURS:
                    clients.check_verified(server.folder / "home")
            except (clients.Wrong, Refused, OSError) as error:
                results.failed(MULTI_FRAME_RATE, peer.name, str(error))
                continue
            results.add(MULTI_FRAME_RATE, peer.name, size_bytes / MEGABYTE / taken_s)
            results.add(MULTI_FRAME_MEMORY, peer.name, watch.cost.peak_process_bytes)


def declare_idle(results: Results) -> None:
    """Name the rows of the idle associations."""
    title = f"{IDLE_ASSOCIATIONS} idle associations"
    results.declare(IDLE_CPU, f"Processor, {title}", Unit.PERCENT)
    results.declare(IDLE_MEMORY, f"Memory in all, {title}", Unit.BYTES)


def hold_idle(folder: Path, results: Results) -> None:
    """Open many associations with our archive and leave them alone."""
    results.begin(1)
    with ours(folder, {}, ROOM_FOR_IDLE) as server, ExitStack() as stack:
        try:
            for _ in range(IDLE_ASSOCIATIONS):
                stack.enter_context(Client(server.port, server.ae_title, STUDY_ROOT_FIND))
        except (Refused, OSError) as error:
            results.failed(IDLE_CPU, OURS, str(error))
            return
        time.sleep(SETTLE_S)
        with Watch(server.pid) as watch:
            time.sleep(WATCHED_S)
        results.add(IDLE_CPU, OURS, watch.cost.cpu_s / WATCHED_S * 100)
        results.add(IDLE_MEMORY, OURS, shared_fairly_bytes(server.pid))
