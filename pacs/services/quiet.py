"""Series and studies that have become complete: nothing of them arrived for a settable time.

An arrival rule that cares returns ``quiet_job`` for each instance; the same rules
are asked again, with the level that became quiet. The job's key is free as soon as
it runs, so an instance that arrives meanwhile asks for a further one: nothing is missed.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from config.settings import Arrival
from pacs.core.attributes import Level
from pacs.core.caller import Caller, on_behalf
from pacs.core.errors import (
    InstanceCorrupt,
    InstanceIncomplete,
    InstanceNotFound,
    InstanceUnreadable,
)
from pacs.core.identifiers import Registrant, SeriesInstanceUID, StudyInstanceUID
from pacs.core.job_ports import JobContext
from pacs.core.records import Instance, Job, Place

KINDS = {Level.SERIES: "quiet.series", Level.STUDY: "quiet.study"}
QUEUE = "quiet"
_MOST_READ = 20
"""So many files in a row that cannot be read are no accident of one: then it is tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuietWork:
    """What may have become quiet: a series where ``series_instance_uid`` is given, else a study."""

    registrant: Registrant
    study_instance_uid: StudyInstanceUID
    series_instance_uid: SeriesInstanceUID | None = None

    @property
    def level(self) -> Level:
        """What it is."""
        return Level.STUDY if self.series_instance_uid is None else Level.SERIES

    def job(self, not_before_utc: datetime) -> Job:
        """The job that looks; one waits at a time."""
        kind = KINDS[self.level]
        parts = (self.registrant, self.study_instance_uid, self.series_instance_uid or "")
        return Job(
            kind=kind,
            payload=json.dumps(
                {  # one by one: asked for at each arrival
                    "registrant": self.registrant,
                    "study_instance_uid": self.study_instance_uid,
                    "series_instance_uid": self.series_instance_uid,
                }
            ),
            queue=QUEUE,
            unique_key=f"{kind}:" + "|".join(parts),
            not_before_utc=not_before_utc,
            cause="arrival",
        )


def quiet_s(level: Level, settings: Arrival) -> float:
    """How long nothing may arrive before it is complete."""
    return settings.series_quiet_s if level is Level.SERIES else settings.study_quiet_s


def quiet_after(level: Level, instance: Instance, settings: Arrival) -> datetime:
    """When it is complete if nothing arrives after ``instance``."""
    return instance.provenance.received_utc + timedelta(seconds=quiet_s(level, settings))


def quiet_job(level: Level, instance: Instance, settings: Arrival) -> Job:
    """Ask that the arrival rules are told when the series or study of ``instance`` has become quiet."""
    header = instance.header
    return QuietWork(
        registrant=instance.provenance.registrant,
        study_instance_uid=header.study_instance_uid,
        series_instance_uid=header.series_instance_uid if level is Level.SERIES else None,
    ).job(quiet_after(level, instance, settings))


class NewestIndex(Protocol):
    """What is asked of the index; see ``storage.database.route``."""

    def newest(
        self,
        registrant: Registrant,
        study: StudyInstanceUID,
        series: SeriesInstanceUID | None,
        *,
        but: int = 0,
    ) -> tuple[Place, datetime] | None: ...


class Quiet:
    """What the jobs ``quiet.series`` and ``quiet.study`` do."""

    def __init__(
        self,
        *,
        index: NewestIndex,
        read: Callable[[Place], Instance],
        asked: Callable[[Caller, Level, Instance], Sequence[Job]],
        now: Callable[[], datetime],
        settings: Arrival,
    ) -> None:
        self._index = index
        self._read = read
        self._asked = asked
        self._now = now
        self._settings = settings

    def look(self, context: JobContext[QuietWork]) -> None:
        """Ask the rules where it is quiet; look again later where it is not; end where nothing is left."""
        work = context.payload
        newest = self._index.newest(
            work.registrant, work.study_instance_uid, work.series_instance_uid
        )
        if newest is None:
            jobs: Sequence[Job] = ()
        else:
            jobs = self._following(work, *newest)
        with context.finish({"jobs": len(jobs)}) as unit:
            for one in jobs:
                unit.enqueue(one)

    def _following(self, work: QuietWork, place: Place, received_utc: datetime) -> Sequence[Job]:
        due = received_utc + timedelta(seconds=quiet_s(work.level, self._settings))
        if due > self._now():
            # Asked for anew instead of put back: so it is one with what arrivals ask for meanwhile.
            return [work.job(due)]
        instance = self._newest_readable(work, place)
        caller = replace(
            on_behalf(work.registrant, KINDS[work.level]),
            ae_title=instance.provenance.source_ae_title,
        )
        return self._asked(caller, work.level, instance)

    def _newest_readable(self, work: QuietWork, place: Place) -> Instance:
        """Read the newest, or the next one: a damaged file keeps its study from nobody."""
        for passed in range(1, _MOST_READ):
            try:
                return self._read(place)
            except (InstanceCorrupt, InstanceIncomplete, InstanceNotFound, InstanceUnreadable):
                following = self._index.newest(
                    work.registrant, work.study_instance_uid, work.series_instance_uid, but=passed
                )
                if following is None:
                    raise
                place, _ = following
        return self._read(place)
