"""What routing asks for later: whether a quiet study or series fires, and which earlier studies go along.

Owns the kinds of these jobs, their payloads and keys, and the order in which
jobs are put into one transaction.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime

from pacs.core.forwarding import FORWARD
from pacs.core.identifiers import AETitle, Registrant, SeriesInstanceUID, StudyInstanceUID
from pacs.core.records import Job

FIRE = "route.fire"
PRIORS = "route.priors"
QUEUE = "route"


@dataclass(frozen=True, slots=True, kw_only=True)
class FireWork:
    """Find out whether ``route`` fires for what has become quiet, and ask for what follows."""

    route: str
    registrant: Registrant
    study_instance_uid: StudyInstanceUID
    series_instance_uid: SeriesInstanceUID | None = None

    def job(self) -> Job:
        """The job that does it."""
        parts = (self.route, self.registrant, self.study_instance_uid, self.series_instance_uid)
        return Job(
            kind=FIRE,
            payload=json.dumps(asdict(self)),
            queue=QUEUE,
            unique_key=f"{FIRE}:" + "|".join(one or "" for one in parts),
            cause=f"route {self.route}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorsWork:
    """Send earlier studies of the patient along with the study that ``route`` selects from."""

    route: str
    destination: AETitle
    registrant: Registrant
    study_instance_uid: StudyInstanceUID

    def job(self, *, not_before_utc: datetime) -> Job:
        """The job that does it; later, so that the instances of a study ask for it seldom."""
        parts = (self.route, self.destination, self.registrant, self.study_instance_uid)
        return Job(
            kind=PRIORS,
            payload=json.dumps(asdict(self)),
            queue=QUEUE,
            unique_key=f"{PRIORS}:" + "|".join(parts),
            not_before_utc=not_before_utc,
            cause=f"route {self.route}",
        )


def keys_of(route: str) -> tuple[str, ...]:
    """How the unique keys of all jobs in a route's name begin."""
    return tuple(f"{kind}:{route}|" for kind in (FORWARD, FIRE, PRIORS))


def in_order(jobs: Iterable[Job]) -> list[Job]:
    """Put jobs in the order in which every transaction asks for them.

    One that waits is locked until the commit: two transactions that lock the same
    in other orders would wait for each other.
    """
    return sorted(jobs, key=lambda one: one.unique_key or "")
