"""An extension of the tests: jobs whose effects are rows that can be counted.

``lay`` puts it where processes find it as an installed distribution; tests in
this process hand ``TALLY`` to ``opened``.
"""

import os
import signal
import time
from pathlib import Path

import msgspec

from pacs.app.archive import Archive
from pacs.app.extension import Attached, Extension
from pacs.core.job_ports import JobContext
from pacs.core.records import Job
from pacs.core.work import Hold, Permanent, Policy, Postpone, Retry
from pacs.jobs.kinds import DEFAULT_QUEUE, JobKind, Schedule


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The extension's table in pacs.toml."""

    cron: str = ""


class Number(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the handlers are told."""

    n: int = 0
    wait_s: float = 0.0


def job(kind: str, n: int = 0, *, wait_s: float = 0.0, **more: object) -> Job:
    """Ask for a job of ours."""
    payload = msgspec.json.encode(Number(n=n, wait_s=wait_s)).decode()
    return Job(kind=f"tally.{kind}", payload=payload, **more)  # type: ignore[arg-type]


def effects(archive: Archive) -> list[int]:
    """List what has been committed."""
    return sorted(row[0] for row in archive.database.execute("SELECT n FROM tally_effect"))


def fail(context: JobContext[Number]) -> None:
    context.log(f"attempt {context.attempt}")
    if context.attempt <= context.payload.n:
        raise Retry("not yet", after_s=0)


def refuse(_: JobContext[Number]) -> None:
    raise Permanent("never")


def postpone(context: JobContext[Number]) -> None:
    raise Postpone("not now", after_s=context.payload.wait_s)


def die(_: JobContext[Number]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def slow(context: JobContext[Number]) -> str:
    until = time.monotonic() + context.payload.wait_s
    while time.monotonic() < until and not context.cancelled():
        context.progress(1, 2)
        time.sleep(0.02)
    return "slept"


def stubborn(context: JobContext[Number]) -> None:
    time.sleep(context.payload.wait_s)


def who(context: JobContext[Number]) -> int:
    time.sleep(context.payload.wait_s)
    return os.getpid()


def family(context: JobContext[Number]) -> list[str]:
    jobs = [job("count", one, queue="part") for one in range(context.payload.n)]
    return [one.state.value for one in context.children([*jobs, job("refuse", queue="part")])]


def attach(archive: Archive, settings: Settings) -> Attached:
    """Give the handlers."""
    holds: list[int] = []

    def count(context: JobContext[Number]) -> None:
        time.sleep(context.payload.wait_s)
        with context.finish({"n": context.payload.n}):
            archive.database.write(
                "INSERT INTO tally_effect (n, job) VALUES (?, ?)", (context.payload.n, context.id)
            )

    def away(context: JobContext[Number]) -> None:
        """Hold the queue ``n`` times, then count."""
        if len(holds) < context.payload.n:
            holds.append(context.id)
            raise Hold("nobody answers", after_s=context.payload.wait_s or None)
        archive.database.write(
            "INSERT INTO tally_effect (n, job) VALUES (?, ?)", (context.payload.n, context.id)
        )

    handlers = (count, away, fail, refuse, postpone, die, slow, stubborn, who, family)
    policy = Policy(max_attempts=3, first_delay_s=0.01, max_delay_s=0.02)
    return Attached(
        jobs={
            f"tally.{one.__name__}": JobKind(
                handler=one,
                payload=Number,
                policy=policy,
                queue="part" if one is count else DEFAULT_QUEUE,
            )
            for one in handlers
        },
        schedules=(Schedule(name="tally", cron=settings.cron, job=job("count", 1)),),
    )


TALLY = Extension(
    name="tally",
    attach=attach,
    settings=Settings,
    migrations=Path(__file__).parent / "migrations",
)


def lay(folder: Path) -> Path:
    """Make a folder for PYTHONPATH in which this extension is installed."""
    information = folder / "tally-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: tally\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[pacs.extensions]\ntally = tests.tally:TALLY\n")
    return folder
