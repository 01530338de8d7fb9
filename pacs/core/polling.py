"""Polls: peers that are asked for what is new there, and what is fetched. Facts only."""

import enum
from dataclasses import dataclass

from pacs.core.identifiers import AETitle


class FetchBy(enum.Enum):
    """How what is missing comes to us."""

    MOVE = "move"  # C-MOVE, to our own AE title
    GET = "get"  # C-GET, on the association it was asked on


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """One poll, as the admin entered it.

    ``window_days`` before today are asked for, by Study Date; ``filters`` are further keys
    of the C-FIND at STUDY level, keyword and value. ``max_instances`` bounds one run; the next
    goes on from there.
    """

    name: str
    ae_title: AETitle
    cron: str
    window_days: int
    by: FetchBy
    filters: tuple[tuple[str, str], ...] = ()
    max_instances: int = 10_000
    active: bool = True
