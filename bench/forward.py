"""What workers do: jobs per second, and a study forwarded by a job against the same study by C-MOVE.

Forwarding and C-MOVE go to the same destination in turn, from the same server, and each is
timed from its beginning to its durable end: a job from when a worker took it, as its row says.
"""

import json
import subprocess
import time
from argparse import Namespace
from datetime import datetime
from pathlib import Path

from bench import clients, jobs
from bench.dimse import Refused
from bench.peers import OURS, Server, ours, receiver
from bench.results import Results, Unit
from bench.servers import pacs
from bench.studies import Study, image_studies

FORWARD, MOVE = "forward-ct", "forward-move-ct"
DESTINATION = "SINK"
PROCESSES = (1, 4)
JOB_BOUND_S = 120.0
UNWATCHED_S = 2.0
"""A command that looks costs more processor time than the job it looks at: let that end first."""


def declare(results: Results) -> None:
    """Name the rows of forwarding."""
    results.declare(MOVE, "C-MOVE CT study, in turn with", Unit.INSTANCES_PER_S)
    results.declare(FORWARD, "… forwarding it by a job", Unit.INSTANCES_PER_S)


def run(folder: Path, results: Results, *, instances: int, rounds: int) -> None:
    """Move and forward one study again and again; the first time warms up."""
    (study,) = image_studies(folder / "source", modality="CT", studies=1, instances=instances)
    with (
        receiver(folder / "sink", "--ignore") as sink,
        ours(folder / "ours", {DESTINATION: sink.port}) as server,
    ):
        clients.store_s(server, [study], stock=False)
        for number in range(rounds + 1):
            results.begin(number)
            try:
                results.add(MOVE, OURS, instances / clients.move_s(server, study, DESTINATION))
                results.add(FORWARD, OURS, instances / forward_s(server, study))
            except (clients.Wrong, Refused, OSError) as error:
                results.failed(FORWARD, OURS, str(error))


def forward_s(server: Server, study: Study) -> float:
    """Have a study forwarded, whatever was sent before; give the seconds its job took."""
    home = server.folder / "home"
    options = ["--to", DESTINATION, "--study", study.study_instance_uid, "--again"]
    subprocess.run(pacs("--home", home, "forward", *options), check=True, stdout=subprocess.DEVNULL)
    until = time.monotonic() + JOB_BOUND_S
    time.sleep(UNWATCHED_S)
    while (row := _newest(home))["ended_utc"] is None:
        if time.monotonic() > until:
            raise clients.Wrong(f"the job is {row['state']}: {row['last_error']}")
        time.sleep(UNWATCHED_S)
    sent = json.loads(str(row["result"] or "{}")).get("sent")
    if sent != len(study.files):
        raise clients.Wrong(f"{sent} of {len(study.files)} instances forwarded: {row['state']}")
    began, ended = (datetime.fromisoformat(str(row[key])) for key in ("started_utc", "ended_utc"))
    return (ended - began).total_seconds()


def _newest(home: Path) -> dict[str, object]:
    listed = subprocess.run(
        pacs("--home", home, "job", "list", "--kind", "forward.send", "--limit", "1", "--json"),
        check=True,
        capture_output=True,
    )
    (row,) = json.loads(listed.stdout)
    found: dict[str, object] = row
    return found


# --- jobs that do nothing ----------------------------------------------------------------


def declare_jobs(results: Results) -> None:
    """Name the rows of jobs."""
    for processes in PROCESSES:
        workers = f"{processes} worker{'s' if processes > 1 else ''}"
        results.declare(_key(processes), f"Jobs that only end, {workers}", Unit.JOBS_PER_S)


def run_jobs(folder: Path, results: Results, *, count: int, rounds: int) -> None:
    """Have jobs done by one worker process and by several."""
    options = Namespace(url="", jobs=count, waiting=0)
    for number in range(1, rounds + 1):
        results.begin(number)
        for processes in PROCESSES:
            home = folder / f"{number}-{processes}"
            home.mkdir(parents=True)
            rate, _ = jobs.measured(home, options, processes)
            results.add(_key(processes), OURS, rate)


def _key(processes: int) -> str:
    return f"jobs-{processes}"
