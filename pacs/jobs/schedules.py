"""When schedules fire: cron expressions turned into periods, each enqueued once over all nodes.

APScheduler's triggers compute times and nothing else; the row in the table of
schedules decides who enqueues.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

from pacs.core.errors import SettingsInvalid
from pacs.core.job_ports import JobTable
from pacs.jobs.kinds import Schedule

_LOG = logging.getLogger("pacs.jobs")
_LONGEST_CRON = 200
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LOOK_BACK = tuple(timedelta(seconds=one) for one in (60, 3_600, 86_400, 32 * 86_400, 366 * 86_400))


def zone(name: str) -> tzinfo:
    """Find a time zone by its IANA name. Raises ``SettingsInvalid``."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise SettingsInvalid(f"jobs.time_zone: no time zone is named {name}") from error


def trigger(cron: str, where: tzinfo) -> BaseTrigger:
    """Read a cron expression: five fields, or six where seconds go first. Raises ``SettingsInvalid``.

    As in cron, 0 and 7 are Sunday, and where both day fields are restricted one of them suffices.
    """
    fields = cron.split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) != 6:
        raise SettingsInvalid(f"cron expression {cron!r}: five fields are needed, or six")
    second, minute, hour, day, month, weekday = fields
    rest = {"second": second, "minute": minute, "hour": hour, "month": month, "timezone": where}
    try:
        days = {"day": day, "day_of_week": _weekdays(weekday)}
        if "*" in (day[0], weekday[0]):
            return CronTrigger(**rest, **days)
        return OrTrigger([CronTrigger(**rest, **{key: one}) for key, one in days.items()])
    except (ValueError, TypeError, IndexError) as error:
        raise SettingsInvalid(f"cron expression {cron!r}: {error}") from error


def _weekdays(field: str) -> str:
    """Name the days of a week: APScheduler counts from Monday, cron from Sunday.

    >>> _weekdays("1-5"), _weekdays("0"), _weekdays("5-7"), _weekdays("*/3"), _weekdays("fri")
    ('mon,tue,wed,thu,fri', 'sun', 'fri,sat,sun', 'sun,wed,sat', 'fri')
    """
    if field == "*":
        return field
    named: list[str] = []
    for part in field.lower().split(","):
        span, _, step = part.partition("/")
        first, dash, last = ("0", "-", "6") if span == "*" else span.partition("-")
        if not first.isdigit():
            named.append(part)
            continue
        end = int(last) if dash else (6 if step else int(first))
        named += [_WEEKDAYS[one] for one in range(int(first), end + 1, int(step or 1))]
    return ",".join(dict.fromkeys(named))


def latest(when: BaseTrigger, after: datetime, now: datetime) -> datetime | None:
    """Give the last time it fired after ``after`` and not after ``now``.

    Looked for in windows that grow, so that a long pause costs little.
    """
    for window in _LOOK_BACK:
        begin = max(after, now - window)
        found, fires = None, _next(when, begin)
        while fires is not None and fires <= now:
            found, fires = fires, _next(when, fires)
        if found is not None or begin == after:
            return found
    return None


def _next(when: BaseTrigger, after: datetime) -> datetime | None:
    fires: datetime | None = when.get_next_fire_time(None, after + timedelta(microseconds=1))
    return None if fires is None else fires.astimezone(UTC)


def check_cron(cron: str) -> None:
    """Refuse a cron expression that cannot be read or never fires. Raises ``SettingsInvalid``."""
    if len(cron) > _LONGEST_CRON:
        raise SettingsInvalid(f"cron expression: at most {_LONGEST_CRON} characters are read")
    if _next(trigger(cron, UTC), datetime.now(UTC)) is None:
        raise SettingsInvalid(f"cron expression {cron!r}: it never fires")


class Scheduler:
    """Enqueues what is due. Every worker process has one; the table lets one of them do it.

    ``schedules`` stand in the settings and are read at once; ``schedules_now``
    is asked at each tick for those that change while we run, and must be cheap.
    """

    def __init__(
        self,
        table: JobTable,
        schedules: Sequence[Schedule],
        time_zone: str,
        *,
        schedules_now: Callable[[], Sequence[Schedule]] = lambda: (),
    ) -> None:
        self._zone = zone(time_zone)
        self._table = table
        self._schedules = [(one, trigger(one.cron, self._zone)) for one in schedules if one.cron]
        self._schedules_now = schedules_now
        self._read: dict[str, tuple[str, BaseTrigger | None]] = {}
        self._due: dict[str, float] = {}

    def tick(self) -> None:
        """Enqueue the schedules whose period has begun. Raises ``RecordsFailed``."""
        for schedule, when in self._schedules:
            self._look_when_due(schedule, when)
        changing = self._schedules_now()
        self._follow(changing)
        for schedule in changing:
            _, read = self._read[schedule.name]
            if read is not None:
                self._look_when_due(schedule, read)

    def _follow(self, changing: Sequence[Schedule]) -> None:
        """Read expressions that are new or changed, and forget those that are gone."""
        read = {}
        for schedule in changing:
            known = self._read.get(schedule.name)
            if known is None or known[0] != schedule.cron:
                self._due.pop(schedule.name, None)
                known = (schedule.cron, self._trigger(schedule))
            read[schedule.name] = known
        for gone in self._read.keys() - read.keys():
            self._due.pop(gone, None)
        self._read = read

    def _trigger(self, schedule: Schedule) -> BaseTrigger | None:
        """Read one expression; one that is broken stops no other, and is told of once."""
        try:
            return trigger(schedule.cron, self._zone) if schedule.cron else None
        except SettingsInvalid as error:
            _LOG.error("schedule-ignored name=%s: %s", schedule.name, error)
            return None

    def _look_when_due(self, schedule: Schedule, when: BaseTrigger) -> None:
        if time.monotonic() >= self._due.get(schedule.name, 0.0):
            self._look(schedule, when)

    def _look(self, schedule: Schedule, when: BaseTrigger) -> None:
        now = self._table.now()
        period = latest(when, self._table.last_period(schedule.name), now)
        if period is not None:
            job = replace(
                schedule.job,
                unique_key=schedule.job.unique_key or f"schedule:{schedule.name}",
                cause=f"schedule {schedule.name} of {period:%Y-%m-%dT%H:%M:%SZ}",
            )
            if self._table.fire(schedule.name, period, job):
                _LOG.debug("schedule-fired name=%s", schedule.name)
        following = _next(when, now)
        wait_s = 86_400.0 if following is None else (following - now).total_seconds()
        # Never asleep for longer than an hour: clocks are set, too.
        self._due[schedule.name] = time.monotonic() + min(max(wait_s, 0.05), 3_600.0)
