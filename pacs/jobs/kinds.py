"""Kinds of work and schedules, as extensions register them. Knows none by name."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pacs.core.job_ports import JobContext
from pacs.core.records import Job
from pacs.core.work import Permanent, Policy

DEFAULT_QUEUE = "default"
_BASE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]*")
_LARGEST_RESULT = 65_536  # bytes of JSON kept in the row


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKind:
    """One kind: an idempotent handler, what its payload is, and what becomes of failures.

    ``payload`` is a msgspec struct or a frozen dataclass. ``queue`` is the base
    name of the queues its jobs are put in: workers without ``--queues`` listen to it. What
    stands behind the base of a ``grouped`` one names a group of nodes, which alone do that work.
    """

    handler: Callable[[JobContext[Any]], object]
    payload: type
    policy: Policy = field(default_factory=Policy)
    queue: str = DEFAULT_QUEUE
    grouped: bool = False

    def __post_init__(self) -> None:
        if not _BASE.fullmatch(self.queue):
            raise ValueError(f"{self.queue!r} cannot be the base name of a queue")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A job enqueued once per period of a cron expression, however many nodes run.

    While one is waiting no further one is added; after a time without workers
    at most one missed period is made up for. An empty ``cron`` is never.
    """

    name: str
    cron: str
    job: Job


def base_of(queue: str) -> str:
    """Give the base name of a queue.

    >>> base_of("route:STORESCP"), base_of("default")
    ('route', 'default')
    """
    return queue.partition(":")[0]


def bases(kinds: Mapping[str, JobKind]) -> frozenset[str]:
    """Name the queues that jobs of these kinds are put in."""
    return frozenset({DEFAULT_QUEUE, *(one.queue for one in kinds.values())})


def is_served(
    queue: str, chosen: Collection[str], groups: Collection[str], grouped: Collection[str]
) -> bool:
    """Tell whether a worker takes jobs of a queue.

    ``chosen`` are those it was told to serve, or bases of them, empty for all; ``groups`` those
    its node is of. What is asked of a group, in a queue whose base is ``grouped``, is left to the
    nodes of that group, and to workers that were told to serve that very queue.

    >>> is_served("process:ct", [], ["mr"], ["process"]), is_served("process", [], [], ["process"])
    (False, True)
    >>> is_served("process:ct", ["process:ct"], [], ["process"])
    True
    """
    base, _, group = queue.partition(":")
    if queue in chosen:
        return True
    if chosen and base not in chosen:
        return False
    return not group or base not in grouped or group in groups


def decoded(kind: JobKind, payload: str) -> object:
    """Read a payload in its registered type. Raises ``Permanent``."""
    try:
        return msgspec.json.decode(payload, type=kind.payload)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise Permanent(f"its payload is malformed: {error}") from error


def encoded(result: object) -> str | None:
    """Write a result as JSON. Raises ``Permanent`` for what JSON cannot say or what is too long."""
    if result is None:
        return None
    try:
        text = msgspec.json.encode(result)
    except (TypeError, ValueError) as error:
        raise Permanent(f"its result is no JSON: {error}") from error
    if len(text) > _LARGEST_RESULT:
        raise Permanent(f"its result has {len(text)} bytes, at most {_LARGEST_RESULT} are kept")
    return text.decode()
