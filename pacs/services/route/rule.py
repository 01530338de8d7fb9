"""The arrival rule of routing: from an arrival and the routes there are to jobs, reading nothing.

An instance is judged by what the index takes from it; what needs more is left to
whoever sends. A series or study is looked at when it has become quiet.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import tzinfo

from config.settings import Arrival as ArrivalSettings
from pacs.core.attributes import Level
from pacs.core.errors import EntryConflicts
from pacs.core.forwarding import ForwardWork
from pacs.core.identifiers import AETitle
from pacs.core.records import Arrival, Instance, Job, Snapshot
from pacs.core.routing import Route
from pacs.services.quiet import quiet_after, quiet_job
from pacs.services.route.asked import FireWork, PriorsWork
from pacs.services.route.conditions import Conditions, conditions, verdict
from pacs.services.route.subjects import Arriving

_LOG = logging.getLogger("pacs.route")
_MOST_ORIGINS = 1_024


class RouteRule:
    """``pacs.core.ports.ArrivalRule``. Safe to use from many threads."""

    def __init__(self, settings: ArrivalSettings, zone: tzinfo) -> None:
        self._settings = settings
        self._zone = zone
        self._active = _Active((), zone)

    def __call__(self, arrival: Arrival, snapshot: Snapshot) -> Iterable[Job]:
        """Give the jobs that the routes ask for."""
        if not snapshot.routes:
            return ()
        active = self._active
        if active.routes is not snapshot.routes:
            self._active = active = _Active(snapshot.routes, self._zone)
        if arrival.level is Level.IMAGE:
            return self._of_instance(arrival.instance, active)
        return self._of_quiet(arrival, active)

    def _of_instance(self, instance: Instance, active: "_Active") -> Iterator[Job]:
        subject = Arriving(instance)
        chosen = active.of_origin(subject)
        for one in chosen.each:
            if verdict(one.rest, subject) is not False:
                yield from self._forwards(one, instance)
        for level in chosen.levels:
            yield quiet_job(level, instance, self._settings)

    def _forwards(self, chosen: Conditions, instance: Instance) -> Iterator[Job]:
        """Ask for the study's instances that the route selects; never for the AE they came from."""
        route, origin = chosen.route, instance.provenance
        for destination in sendable(route, origin.source_ae_title):
            yield ForwardWork(
                route=route.name,
                destination=destination,
                registrant=origin.registrant,
                study_instance_uid=instance.header.study_instance_uid,
                whole=not (chosen.origin or chosen.rest),
            ).job(priority=route.priority, cause=f"route {route.name}")
            if route.priors is not None:
                yield PriorsWork(
                    route=route.name,
                    destination=destination,
                    registrant=origin.registrant,
                    study_instance_uid=instance.header.study_instance_uid,
                ).job(not_before_utc=quiet_after(Level.SERIES, instance, self._settings))

    def _of_quiet(self, arrival: Arrival, active: "_Active") -> Iterator[Job]:
        """Ask for a look at what has become quiet; registrant and time are known already."""
        instance = arrival.instance
        subject = Arriving(instance)
        series = instance.header.series_instance_uid if arrival.level is Level.SERIES else None
        for one in active.conditions:
            if one.route.level is not arrival.level or not verdict(one.times, subject):
                continue
            if one.route.registrants and subject.registrant not in one.route.registrants:
                continue
            yield FireWork(
                route=one.route.name,
                registrant=subject.registrant,
                study_instance_uid=instance.header.study_instance_uid,
                series_instance_uid=series,
            ).job()


class _Active:
    """The active routes of one snapshot, and which of them an origin can mean, made once."""

    def __init__(self, routes: tuple[Route, ...], zone: tzinfo) -> None:
        self.routes = routes
        self.conditions = tuple(_usable(routes, zone))
        self._origins: dict[tuple[str, str, str | None], _Chosen] = {}

    def of_origin(self, subject: Arriving) -> "_Chosen":
        """Those whose conditions on registrant and AE titles are kept."""
        origin = (subject.registrant, subject.calling_ae_title, subject.called_ae_title)
        found = self._origins.get(origin)
        if found is None:
            kept = [one for one in self.conditions if verdict(one.origin, subject) is not False]
            found = _Chosen(
                each=tuple(one for one in kept if one.route.level is Level.IMAGE),
                levels=frozenset(one.route.level for one in kept) - {Level.IMAGE},
            )
            if len(self._origins) >= _MOST_ORIGINS:
                self._origins.clear()
            self._origins[origin] = found
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """Routes of instances, and the levels that other routes wait for."""

    each: tuple[Conditions, ...]
    levels: frozenset[Level]


def _usable(routes: tuple[Route, ...], zone: tzinfo) -> Iterator[Conditions]:
    for one in routes:
        if one.active:
            try:
                yield conditions(one, zone)
            except EntryConflicts as error:  # kept by another version: nothing arrives the worse
                _LOG.error("route-unusable route=%s: %s", one.name, error)


def sendable(route: Route, source: AETitle) -> tuple[AETitle, ...]:
    """The destinations of a route but the one it came from: nothing is sent back."""
    return tuple(one for one in route.destinations if one != source)
