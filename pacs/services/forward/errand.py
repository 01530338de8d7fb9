"""One job at work: shipments until nothing is missing, then commitment, then the job's end.

Owns the order of these and when it lets others go first; how a shipment that
did not bring everything is judged is ``verdict``'s.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

from pacs.core.caller import Caller
from pacs.core.forwarding import ForwardWork
from pacs.core.identifiers import SOPInstanceUID
from pacs.core.job_ports import JobContext
from pacs.core.records import Held, Payload, Peer
from pacs.core.routing import Commitment, Route
from pacs.core.sent import Run, SentRow, SentState
from pacs.services.delivery.shipment import Pages, Preparation
from pacs.services.forward import promise, verdict
from pacs.services.forward.desk import Desk
from pacs.services.forward.survey import Survey, doubt, survey, tallied
from pacs.services.forward.trip import Trip

_SHORT_S = 1.0
"""A shipment that is over sooner is not worth a transaction for its progress."""
_ASK_AGAIN_S = 1.0
"""How often it is asked whether others wait, once a slice is over."""


class Errand:
    """One run of one job."""

    def __init__(
        self,
        desk: Desk,
        context: JobContext[ForwardWork],
        peer: Peer,
        route: Route | None,
        caller: Caller,
    ) -> None:
        self._desk = desk
        self._context = context
        self._work = context.payload
        self._peer = peer
        self._route = route
        self._caller = caller
        self._run = Run(destination=self._work.destination, job=context.id, number=time.time_ns())
        self._counts: Counter[SentState] = Counter()
        self._slice_ends_s = time.monotonic() + desk.settings.slice_s
        self._trip: Trip | None = None
        self._undecided: Sequence[SOPInstanceUID] = ()

    def fulfil(self) -> None:
        """Do it, or raise how the job goes on; returns without having ended it where it was told to stop."""
        try:
            rows = self._send()
            if rows is not None:
                self._end(rows)
        finally:
            self._audit()

    # --- sending ---------------------------------------------------------------------

    def _send(self) -> Sequence[SentRow] | None:
        """Send what is missing; gives what is known then, nothing where it was told to stop."""
        while (found := self._survey()).missing:
            trip, vanished = self._went(found)
            if trip.complete(len(found.missing) - vanished):
                self._trip = trip
                break
            trip.settle()
            if self._context.cancelled():
                return None
            most = self._desk.settings.max_attempts
            verdict.judge(trip, found.tried, total=len(found.known), max_attempts=most)
            self._context.log(f"the association ended ({trip.trouble}); another one is opened")
        return list(found.known.values())

    def _survey(self) -> Survey:
        found = survey(self._desk, self._work, self._route)
        self._undecided = found.undecided
        left = doubt(self._desk, self._work, found)
        if left:
            self._context.log(f"{left} instances may have been received: an earlier run ended")
            return survey(self._desk, self._work, self._route)
        return found

    def _went(self, found: Survey) -> tuple[Trip, int]:
        """Send once; gives how that went, and how many instances were deleted meanwhile."""
        order = [found.known[one[0]].object_id for one in found.missing]
        trip = Trip(self._desk, self._run, self._caller, order)
        in_order = self._route is not None and self._route.in_order
        window = self._desk.settings.window
        shipment = self._desk.shipping.shipment(
            self._peer,
            found.missing,
            preparation=self._preparation(),
            associations=1 if in_order else None,
            pages=Pages(rows=window, untold=window, before=trip.before),
        )
        sent_before, total = len(found.sent), len(found.known)
        shown_after_s = time.monotonic() + _SHORT_S
        tried, most = found.tried, self._desk.settings.max_attempts

        def stopped() -> bool:
            if time.monotonic() > shown_after_s:
                self._context.progress(sent_before + len(trip.fates), total)
            if self._is_over() or verdict.is_full(trip.last, tried, most):
                shipment.pause()
            return self._context.cancelled()

        try:
            trip.go(shipment, stopped)
        finally:
            self._counts.update(told.state for told, _ in trip.fates.values())
        return trip, shipment.vanished()

    def _is_over(self) -> bool:
        """Tell whether to let other queues go first."""
        if time.monotonic() < self._slice_ends_s:
            return False
        self._slice_ends_s = time.monotonic() + _ASK_AGAIN_S
        return self._desk.others_due(f"forward:{self._work.destination}")

    def _preparation(self) -> Preparation | None:
        route, coercer = self._route, self._desk.coercer
        if route is None or not route.coercions:
            return None
        coercions = route.coercions

        @contextmanager
        def changed(_: Held, payload: Payload) -> Iterator[Payload]:
            made: AbstractContextManager[str] = coercer.coerced(
                payload.path, payload.offset, payload.transfer_syntax_uid, coercions
            )
            with made as path:
                yield replace(payload, path=path, offset=0, size_bytes=None)

        return Preparation(make=changed)

    # --- ending ----------------------------------------------------------------------

    def _end(self, rows: Sequence[SentRow]) -> None:
        """Have it committed where the route asks for it, and end the job with its last window."""
        trip, route, more = self._trip, self._route, False
        if route is not None and route.commitment is not Commitment.NO:
            if trip is not None:
                trip.settle()
                rows = list(survey(self._desk, self._work, route).known.values())
            more = promise.ask(self._desk, self._context, route, rows)
            rows = list(survey(self._desk, self._work, route).known.values())
        if self._undecided:
            if trip is not None:
                trip.settle()
            raise verdict.not_judged(self._undecided)
        fresh = frozenset() if trip is None else frozenset(trip.fates)
        with self._context.finish(tallied(rows, self._context.id, fresh)) as unit:
            if trip is not None:
                trip.write(unit)
            if more:  # it came while the answer was awaited
                unit.enqueue(self._work.job(cause=f"job {self._context.id}"))

    def _audit(self) -> None:
        if self._counts:
            self._desk.audit.record(
                "instances-forwarded",
                self._caller,
                study=self._work.study_instance_uid,
                destination=self._work.destination,
                job=self._context.id,
                sent=self._counts[SentState.SENT],
                refused=self._counts[SentState.REFUSED],
                unknown=self._counts[SentState.UNKNOWN],
            )
