"""Compression at rest, attached: who does it, when, and what it leaves to be removed."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from config.settings import Storage
from pacs.core.caller import admin
from pacs.core.forms import NATIVE, Outcome, Scope
from pacs.core.job_ports import JobContext
from pacs.core.ports import ArrivalRule
from pacs.core.records import Arrival, Instance, Job, Snapshot
from pacs.core.work import Postpone, Retry
from pacs.jobs.kinds import JobKind, Schedule
from pacs.services.compress import Compression, Tally, Tidying
from pacs.services.compress.reencode import Reencoder
from processing.datasets.allowance import Allowance
from storage.database.compress import FormTable

if TYPE_CHECKING:
    from pacs.app.archive import Archive
    from pacs.app.extension import Attached

COMPRESS_SERIES: Final = "compress.series"
TIDY: Final = "compress.tidy"
_QUEUE: Final = "compress"
SLICE_S = 15.0
"""Shorter than ``jobs.drain_timeout_s``, so that a stopping worker ends it in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The payload of ``compress.series``."""

    registrant: str
    study_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """The payload of ``compress.tidy``."""


def compression(archive: "Archive") -> Compression:
    """Put the service together for one process."""
    transcoder = archive.transcoder
    index = FormTable(archive.database)
    return Compression(
        index=index,
        reencoder=Reencoder(
            index=index,
            store=archive.store,
            transcoder=transcoder,
            restorer=transcoder.restorer,
            keep_s=archive.settings.storage.keep_original_s,
        ),
        audit=archive.audit,
        workers=os.cpu_count() or 1,
        task_s=Allowance(archive.settings.retrieve).for_samples,  # a sample has a byte at least
    )


def tidying(archive: "Archive") -> Tidying:
    """Put what removes surplus files together."""
    return Tidying(
        index=FormTable(archive.database),
        store=archive.store,
        audit=archive.audit,
        lease_s=compression(archive).lease_s,
    )


def attach(archive: "Archive", _: object) -> "Attached":
    """Give the rule, the jobs and when the chore is due."""
    from pacs.app.extension import Attached

    storage = archive.settings.storage
    service = compression(archive)

    def compress(job: JobContext[Series]) -> object:
        return _compress(service, storage.compress, job)

    def tidy(_: JobContext[Nothing]) -> int:
        return tidying(archive).run(admin("worker"))

    return Attached(
        on_arrival=() if storage.compress == "off" else (rule(storage),),
        jobs={
            COMPRESS_SERIES: JobKind(handler=compress, payload=Series, queue=_QUEUE),
            TIDY: JobKind(handler=tidy, payload=Nothing, queue="chores"),
        },
        schedules=(
            Schedule(
                name=TIDY,
                cron=storage.compress_tidy_cron,
                job=Job(kind=TIDY, payload="{}", queue="chores"),
            ),
        ),
    )


def rule(storage: Storage) -> ArrivalRule:
    """Ask for one job a series, some time after its first instance that can be compressed."""
    delay = timedelta(seconds=storage.compress_delay_s)

    def jobs(arrival: Arrival, _: Snapshot) -> Iterator[Job]:
        if not _is_worth_trying(arrival.instance):
            return
        header = arrival.instance.header
        series = Series(
            registrant=arrival.instance.provenance.registrant,
            study_instance_uid=header.study_instance_uid,
            series_instance_uid=header.series_instance_uid,
        )
        payload = msgspec.json.encode(series).decode()
        yield Job(
            kind=COMPRESS_SERIES,
            payload=payload,
            unique_key=f"{COMPRESS_SERIES}:{payload}",
            queue=_QUEUE,
            not_before_utc=arrival.instance.provenance.received_utc + delay,
            cause=f"arrival in series {header.series_instance_uid}",
        )

    return jobs


def _is_worth_trying(instance: Instance) -> bool:
    """Tell whether it is native and an image: Rows is of every Image Pixel module (PS3.3 C.7.6.3)."""
    return instance.transfer_syntax_uid in NATIVE and "Rows" in instance.header.values


class _Slice:
    """How long one job may hold its worker: others wait in other queues, and a stop is not to wait."""

    def __init__(self, job: JobContext[Series]) -> None:
        self._job = job
        self._until: float | None = None
        self.over = False

    def stop(self) -> bool:
        """Tell whether to stop, by somebody's word or because its time is over."""
        if self._until is None:  # asked before it has done anything: so much is always done
            self._until = time.monotonic() + SLICE_S
        else:
            self.over = time.monotonic() > self._until
        return self.over or self._job.cancelled()


def _compress(service: Compression, target: str, job: JobContext[Series]) -> object:
    """Hold a series compressed, a slice at a time."""
    if target == "off":
        return "storage.compress is off by now"
    scope = Scope(
        registrant=job.payload.registrant,
        study_instance_uid=job.payload.study_instance_uid,
        series_instance_uid=job.payload.series_instance_uid,
    )
    caller = admin("worker")
    total, done = service.count(caller, scope, target), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        job.progress(done, max(done, total))

    slice_ = _Slice(job)
    tally = service.run(caller, scope, target, advance=advance, cancelled=slice_.stop)
    for reason, count in tally.reasons.items():
        job.log(f"{count} left as they are: {reason}")
    if slice_.over and tally.outcomes[Outcome.CHANGED] + tally.outcomes[Outcome.REFUSED]:
        raise Postpone(f"{total - done} to go, after others", after_s=0)
    return _ended(service, tally)


def _ended(service: Compression, tally: Tally) -> object:
    """End the job, or try again: what failed, and what whoever died has left claimed."""
    if tally.outcomes[Outcome.FAILED]:
        raise Retry(f"{tally.outcomes[Outcome.FAILED]} instances failed; they stay as they are")
    if tally.outcomes[Outcome.PASSED_OVER]:
        raise Postpone("somebody else is at some instances", after_s=service.lease_s)
    return tally.facts()
