"""Handlers of routing's jobs: does what became quiet fire, and which earlier studies go along.

They read the route as it is now: one that was removed or switched off meanwhile asks for nothing.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from pacs.core.forwarding import ForwardWork
from pacs.core.identifiers import AETitle, Registrant, SeriesInstanceUID, StudyInstanceUID
from pacs.core.job_ports import JobContext
from pacs.core.records import Job
from pacs.core.routing import Priors, Route
from pacs.services.route.asked import FireWork, PriorsWork, in_order
from pacs.services.route.judge import Judge


class StudyIndex(Protocol):
    """What is held of a study and its patient; see ``storage.database.route``."""

    def comes_only_from(
        self,
        ae_title: AETitle,
        registrant: Registrant,
        study: StudyInstanceUID,
        series: SeriesInstanceUID | None,
    ) -> bool: ...

    def priors(
        self, registrant: Registrant, study: StudyInstanceUID, priors: Priors
    ) -> Sequence[StudyInstanceUID]: ...


class Firing:
    """What the jobs ``route.fire`` and ``route.priors`` do."""

    def __init__(self, judge: Judge, index: StudyIndex) -> None:
        self._judge = judge
        self._index = index

    def fire(self, context: JobContext[FireWork]) -> None:
        """Ask for a whole study or series where one instance of it keeps all conditions."""
        work = context.payload
        route = self._firing(context, work, work.series_instance_uid)
        if context.cancelled():
            return
        _finish(context, [] if route is None else in_order(self._wholes(route, work)))

    def priors(self, context: JobContext[PriorsWork]) -> None:
        """Ask for the earlier studies that go with one."""
        work = context.payload
        route = self._firing(context, work, None)
        if context.cancelled():
            return
        jobs = () if route is None else self._priors(route, work, work.destination)
        _finish(context, in_order(jobs))

    def _firing(
        self,
        context: JobContext[FireWork] | JobContext[PriorsWork],
        work: FireWork | PriorsWork,
        series: SeriesInstanceUID | None,
    ) -> Route | None:
        route = self._judge.route(work.route)
        if route is None or not route.active:
            context.log(f"route {work.route} is gone or switched off")
            return None
        fires = self._judge.selects_any(
            route, work.registrant, work.study_instance_uid, series, context.cancelled
        )
        return route if fires else None

    def _wholes(self, route: Route, work: FireWork) -> Iterator[Job]:
        for destination in route.destinations:
            series = work.series_instance_uid
            if self._only_back(destination, work.registrant, work.study_instance_uid, series):
                continue
            yield ForwardWork(
                route=route.name,
                destination=destination,
                registrant=work.registrant,
                study_instance_uid=work.study_instance_uid,
                series_instance_uid=series,
            ).job(priority=route.priority, cause=f"route {route.name}")
            yield from self._priors(route, work, destination)

    def _priors(
        self, route: Route, work: FireWork | PriorsWork, destination: AETitle
    ) -> Iterator[Job]:
        """Earlier studies go whole, and after the study itself."""
        if route.priors is None:
            return
        for study in self._index.priors(work.registrant, work.study_instance_uid, route.priors):
            if self._only_back(destination, work.registrant, study, None):
                continue
            yield ForwardWork(
                route=route.name,
                destination=destination,
                registrant=work.registrant,
                study_instance_uid=study,
            ).job(
                priority=route.priority - 1,
                cause=f"route {route.name}, prior of {work.study_instance_uid}",
            )

    def _only_back(
        self,
        destination: AETitle,
        registrant: Registrant,
        study: StudyInstanceUID,
        series: SeriesInstanceUID | None,
    ) -> bool:
        """Tell whether all there is came from the destination: nothing is sent back."""
        return self._index.comes_only_from(destination, registrant, study, series)


def _finish(context: JobContext[FireWork] | JobContext[PriorsWork], jobs: Sequence[Job]) -> None:
    with context.finish({"jobs": len(jobs)}) as unit:
        for one in jobs:
            unit.enqueue(one)
