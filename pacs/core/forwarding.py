"""What is asked of forwarding: one destination shall hold what a route selects of one study.

Who asks is ``pacs.services.route``; who sends is ``pacs.services.forward``.
"""

import json
from dataclasses import asdict, dataclass

from pacs.core.identifiers import AETitle, Registrant, SeriesInstanceUID, StudyInstanceUID
from pacs.core.records import Job

FORWARD = "forward.send"
"""The kind of job. Its queue is ``forward:`` and the destination's AE title."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardWork:
    """Make ``destination`` hold what ``route`` selects of one study; the payload of ``FORWARD``.

    With a ``series_instance_uid`` that series only. ``whole``: everything there is, without asking the
    route's keys again. ``route`` names it for its coercions and order; empty for none.
    """

    route: str
    destination: AETitle
    registrant: Registrant
    study_instance_uid: StudyInstanceUID
    series_instance_uid: SeriesInstanceUID | None = None
    whole: bool = True

    def job(self, *, priority: int = 0, cause: str = "") -> Job:
        """The job that does it: one at a time per destination, one waiting per thing to send."""
        parts = (
            self.route,
            self.destination,
            self.registrant,
            self.study_instance_uid,
            self.series_instance_uid or "",
        )
        return Job(
            kind=FORWARD,
            payload=json.dumps(asdict(self)),
            queue=f"forward:{self.destination}",
            alone=True,
            unique_key=f"{FORWARD}:" + "|".join(parts),
            priority=priority,
            cause=cause,
        )
