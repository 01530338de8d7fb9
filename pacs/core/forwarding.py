"""What is asked of forwarding, and what forwarding asks: one destination shall hold what a route selects.

Who asks is ``pacs.services.route``; who sends is ``pacs.services.forward``;
``pacs.services.commitment`` asks the destination to answer for it.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Protocol

from pacs.core.creator import Creator
from pacs.core.identifiers import (
    AETitle,
    Registrant,
    SeriesInstanceUID,
    SOPClassUID,
    SOPInstanceUID,
    StudyInstanceUID,
    TransferSyntaxUID,
)
from pacs.core.records import Job
from pacs.core.routing import Coercion, Route

MOST_NAMED = 500
"""Instances that one job names at most: as many as the index is asked for at once."""

FORWARD = "forward.send"
"""The kind of job. Its queue is ``forward:`` and the destination's AE title."""

NOT_ALLOWED = "not allowed any more: "
"""Stands before the reason where a job ended because whoever asked may not have it sent any more."""

COMMITMENT = "commitment.request"
"""The kind of job that ends when a destination has said what it answers for, or the time for that is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardWork:
    """Make ``destination`` hold what ``route`` selects of one study; the payload of ``FORWARD``.

    With a ``series_instance_uid`` that series only, and of it with ``sop_instance_uids`` those only,
    at most ``MOST_NAMED``. ``whole``: everything there is, without asking the route's keys again.
    ``route`` names it for its coercions and order; empty for none. ``creator`` asked for it, is judged
    by its contract at each run, and pays; ``None`` where nobody but the registrant is meant.
    """

    route: str
    destination: AETitle
    registrant: Registrant
    study_instance_uid: StudyInstanceUID
    series_instance_uid: SeriesInstanceUID | None = None
    whole: bool = True
    sop_instance_uids: tuple[SOPInstanceUID, ...] = ()
    creator: Creator | None = None

    def job(self, *, priority: int = 0, cause: str = "") -> Job:
        """The job that does it: one at a time per destination, one waiting per thing to send."""
        parts = (
            self.route,
            self.destination,
            self.registrant,
            self.study_instance_uid,
            self.series_instance_uid or "",
            # What asks for everything is not one with what asks for a part.
            "whole" if self.whole else "",
            *self._named(),
            *self._asked(),
        )
        # One by one: asked for at each arrival, and asdict takes four times as long.
        payload: dict[str, object] = {
            "route": self.route,
            "destination": self.destination,
            "registrant": self.registrant,
            "study_instance_uid": self.study_instance_uid,
            "series_instance_uid": self.series_instance_uid,
            "whole": self.whole,
        }
        if self.sop_instance_uids:
            payload["sop_instance_uids"] = self.sop_instance_uids
        if self.creator is not None:
            payload["creator"] = asdict(self.creator)
        return Job(
            kind=FORWARD,
            payload=json.dumps(payload),
            queue=f"forward:{self.destination}",
            alone=True,
            unique_key=f"{FORWARD}:" + "|".join(parts),
            priority=priority,
            cause=cause,
        )

    def _named(self) -> tuple[str, ...]:
        """Tell apart, in few characters, what names other instances."""
        if not self.sop_instance_uids:
            return ()
        return (hashlib.sha256("\n".join(self.sop_instance_uids).encode()).hexdigest(),)

    def _asked(self) -> tuple[str, ...]:
        """Tell apart who asked: one that may have it sent is not refused with one that may not."""
        if self.creator is None:
            return ()
        return (
            hashlib.sha256("\n".join(map(str, asdict(self.creator).values())).encode()).hexdigest(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentWork:
    """Have ``destination`` take over responsibility for what it was sent; the payload of ``COMMITMENT``.

    The job's result is ``{"offered": bool, "committed": number, "failed": {SOP Instance UID: Failure Reason}}``.
    It fails where the destination said nothing in time, and where it is ``required`` and not offered.
    """

    destination: AETitle
    references: tuple[tuple[SOPClassUID, SOPInstanceUID], ...]
    required: bool = False

    def job(self, *, cause: str = "") -> Job:
        """The job that does it; a part of the one that sent."""
        return Job(
            kind=COMMITMENT,
            payload=json.dumps(asdict(self)),
            queue=f"commitment:{self.destination}",
            cause=cause,
        )


class RouteJudge(Protocol):
    """What forwarding asks of the routes."""

    def route(self, name: str) -> Route | None:
        """The route of that name, active or not; ``None`` where it was removed."""
        ...

    def selects(
        self,
        route: Route,
        registrant: Registrant,
        rows: Sequence[int],
        *,
        undecided: set[int] | None = None,
    ) -> frozenset[int]:
        """Which of these index rows of instances keep the route's conditions. Raises ``RecordsFailed``.

        Into ``undecided`` go those that break no condition and have files that cannot be read.
        """
        ...

    def came_from(self, ae_title: AETitle, rows: Sequence[int]) -> frozenset[int]:
        """Which of these instances were received from that AE: it is never sent them back."""
        ...


class Coercer(Protocol):
    """Changes attributes of a Data Set on its way out; everything else stays byte for byte."""

    def coerced(
        self, path: str, offset: int, syntax: TransferSyntaxUID, coercions: Sequence[Coercion]
    ) -> AbstractContextManager[str]:
        """Yield the path of a file holding only the changed Data Set, in the same syntax; removed afterwards.

        Raises ``CoercionFailed`` where a change cannot be made without loss.
        """
        ...
