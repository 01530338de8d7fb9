"""``python -m bench``: our archive and its peers in turn, in one run, and the ratios between them.

Every round begins on fresh folders and visits all servers row by row; round 0
warms up. Nothing is deleted before the end: making files just after a mass
delete is many times slower, and would be measured.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import clients, compressing, extremes, forward, gate, machine, queries, report, rows
from bench.peers import OURS, PEERS, Peer, receiver
from bench.results import Results, turns

EXTRAS = ("forward", "compress", "jobs", "find", "multi-frame", "idle", "gate")
MEMORY = Path("/dev/shm")
QUICK = rows.Counts(ct=30, mr=30, each_of_four=8, stock=10)
GIB = 1 << 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and tell whether every figure of ours could be taken."""
    options = parsed(arguments)
    # As an exception, so that every server is ended and every folder removed on the way out.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    peers = available(options.peers)
    if len(peers) < 2:
        print("Nobody to compare with: sudo apt-get install dcmtk orthanc", file=sys.stderr)
        return 1
    results = Results()
    with tempfile.TemporaryDirectory(prefix="pacs-bench-", dir=options.folder) as name:
        folder = Path(name)
        facts = [*machine.describe(folder), *machine.notes(counted(options, peers))]
        run(options, folder, peers, results)
        say("deleting")
    text = report.markdown(results, peers, facts)
    print(text)
    if options.markdown:
        report.write(options.markdown, text)
    return 1 if any(peer == OURS for _, peer in results.failures) else 0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    keys = [*(one.key for one in rows.ROWS), *EXTRAS]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small counts, one round")
    parser.add_argument("--rounds", type=int, help="rounds that count, after one to warm up")
    parser.add_argument("--rows", nargs="+", choices=keys, default=keys, metavar="ROW",
                        help=f"what to measure: {', '.join(keys)}")  # fmt: skip
    parser.add_argument("--peers", nargs="+", choices=[one.name for one in PEERS], metavar="PEER",
                        help="whom to compare; ours is always there")  # fmt: skip
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"),
                        help="where homes are made: a disk, for fsync to mean something")  # fmt: skip
    parser.add_argument("--markdown", type=Path, metavar="PAGE",
                        help="also keep the tables in this page, between its marks")  # fmt: skip
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.counts = QUICK if options.quick else rows.Counts()
    options.studies = 200 if options.quick else 1_000
    options.jobs = 200 if options.quick else 2_000
    options.multi_frame_bytes = GIB // 8 if options.quick else GIB
    return options


def available(names: Sequence[str] | None) -> list[Peer]:
    """Choose the peers that are wanted and installed; say who is not."""
    chosen = []
    for peer in PEERS:
        if names is not None and peer.name not in (OURS, *names):
            continue
        if missing := peer.missing():
            print(f"{peer.name} takes no part: {missing}", file=sys.stderr)
        else:
            chosen.append(peer)
    return chosen


def counted(options: argparse.Namespace, peers: Sequence[Peer]) -> list[str]:
    """Say how much was sent how often, and what each server does."""
    counts = options.counts
    return [
        f"Rounds: {options.rounds} after one to warm up; {counts.ct} CT, {counts.mr} MR, "
        f"{rows.ASSOCIATIONS} × {counts.each_of_four} with several associations, "
        f"{counts.stock} with the stock client",
        *(f"{one.name}: {one.note}" for one in peers),
    ]


def run(options: argparse.Namespace, folder: Path, peers: Sequence[Peer], results: Results) -> None:
    """Measure everything that was asked for."""
    if wanted := rows.chosen(options.rows):
        rows.declare(results, wanted)
        store_and_retrieve(options, folder / "rows", peers, wanted, results)
    work(options, folder, results)
    if "find" in options.rows:
        say("C-FIND")
        queries.declare(results, options.studies)
        queries.run(folder / "find", peers, results, studies=options.studies, rounds=options.rounds)
    if "multi-frame" in options.rows:
        say("one huge object")
        extremes.declare_multi_frame(results, options.multi_frame_bytes)
        extremes.receive_multi_frame(
            folder / "multi-frame", peers, results, size_bytes=options.multi_frame_bytes
        )
    if "idle" in options.rows:
        say("idle associations")
        extremes.declare_idle(results)
        extremes.hold_idle(folder / "idle", results)


def work(options: argparse.Namespace, folder: Path, results: Results) -> None:
    """Measure what workers do."""
    if "forward" in options.rows:
        say("forwarding")
        forward.declare(results)
        counts = options.counts
        forward.run(folder / "forward", results, instances=counts.ct, rounds=options.rounds)
    if "compress" in options.rows:
        say("compressing")
        compressing.declare(results)
        counts = options.counts
        compressing.run(folder / "compress", results, instances=counts.ct, rounds=options.rounds)
    if "gate" in options.rows:
        say("the gate")
        gate.declare(results)
        counts = options.counts
        gate.run(folder / "gate", results, instances=counts.ct, rounds=options.rounds)
    if "jobs" in options.rows:
        say("jobs")
        forward.declare_jobs(results)
        forward.run_jobs(folder / "jobs", results, count=options.jobs, rounds=options.rounds)


def store_and_retrieve(
    options: argparse.Namespace,
    folder: Path,
    peers: Sequence[Peer],
    wanted: Sequence[rows.Row],
    results: Results,
) -> None:
    """Run the rounds between two move destinations."""
    say("making studies")
    studies = rows.make_studies(folder / "source", options.counts)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=scratch_in(folder))))
        kept = scratch / "kept" / "received"
        keeping = receiver(scratch / "kept", "+B", "-od", str(kept))
        sinks = {
            rows.DISCARDING: stack.enter_context(receiver(folder / "sink", "--ignore")).port,
            rows.KEEPING: stack.enter_context(keeping).port,
        }
        bench = rows.Bench(studies=studies, scratch=scratch, kept=kept)
        for number in range(options.rounds + 1):
            say(f"round {number} of {options.rounds}" if number else "warming up")
            results.begin(number)
            one_round(folder / f"round-{number}", peers, sinks, wanted, bench, results)


def one_round(
    folder: Path,
    peers: Sequence[Peer],
    sinks: dict[str, int],
    wanted: Sequence[rows.Row],
    bench: rows.Bench,
    results: Results,
) -> None:
    """Visit all servers row by row, another one first each time; then have ours verified."""
    with ExitStack() as stack:
        running = [
            (one, stack.enter_context(one.start(folder / str(place), sinks)))
            for place, one in enumerate(peers)
        ]
        for turn, row in enumerate(wanted):
            for peer, server in turns(running, turn + results.round):
                rows.measure(row, peer, server, bench, results)
    home = folder / str([one.name for one in peers].index(OURS)) / "home"
    try:
        clients.check_verified(home)
    except clients.Wrong as error:
        results.failed("verify", OURS, str(error))


def scratch_in(folder: Path) -> Path:
    """Give memory to retrieve into, where the machine has enough; else the same disk."""
    has_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2 * GIB
    return MEMORY if has_memory else folder


def say(what: str) -> None:
    """Tell whoever waits where we are."""
    print(f"[{time.strftime('%H:%M:%S')}] {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
