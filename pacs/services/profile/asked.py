"""What profiles ask for later: processing what has become quiet, giving up its sources when all is done.

Owns the kinds of these jobs, their payloads and keys.
"""

import json
from dataclasses import asdict, dataclass
from datetime import datetime

from pacs.core.identifiers import AETitle, Registrant, SeriesInstanceUID, StudyInstanceUID
from pacs.core.records import Job
from pacs.core.workitems import WorkitemUID

ARRIVED = "process.arrived"
TIDY = "process.tidy"
QUEUE = "profile"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivedWork:
    """A series was sent to a profile's AE title: process it once nothing more arrives.

    ``again`` says when it was sent once more, where all of it that came was held already.
    """

    profile: AETitle
    registrant: Registrant
    study_instance_uid: StudyInstanceUID
    series_instance_uid: SeriesInstanceUID
    source_ae_title: AETitle
    purpose: str = ""
    again: str = ""

    def job(self, not_before_utc: datetime) -> Job:
        """The job that looks; one waits at a time."""
        return Job(
            kind=ARRIVED,
            payload=json.dumps(
                {  # one by one: asked for at each arrival
                    "profile": self.profile,
                    "registrant": self.registrant,
                    "study_instance_uid": self.study_instance_uid,
                    "series_instance_uid": self.series_instance_uid,
                    "source_ae_title": self.source_ae_title,
                    "purpose": self.purpose,
                    "again": self.again,
                }
            ),
            queue=QUEUE,
            unique_key=self.key_prefix + self.purpose,
            not_before_utc=not_before_utc,
            cause=f"profile {self.profile}",
        )

    @property
    def key_prefix(self) -> str:
        """How the keys of the jobs about this series begin, whatever the purpose."""
        parts = (self.profile, self.registrant, self.study_instance_uid, self.series_instance_uid)
        return f"{ARRIVED}:" + "|".join(parts) + "|"


@dataclass(frozen=True, slots=True, kw_only=True)
class TidyWork:
    """Give up what was sent to a profile, once its workitem is completed and every destination has the results.

    ``held`` is ``fingerprint`` of the files that were processed.
    """

    arrived: ArrivedWork
    workitem: WorkitemUID
    destinations: tuple[AETitle, ...]
    held: str
    asked_utc: datetime

    def job(self) -> Job:
        """The job that looks."""
        said = {**asdict(self), "asked_utc": self.asked_utc.isoformat()}
        return Job(
            kind=TIDY,
            payload=json.dumps(said),
            queue=QUEUE,
            unique_key=f"{TIDY}:{self.workitem}",
            not_before_utc=self.asked_utc,
            cause=f"profile {self.arrived.profile}",
        )
