"""Polls: peers asked on a schedule for what is new there, and what is missing here fetched.

This module is what an administrator does with them; ``run`` is what one run
does, ``choice`` what it asks for, ``receiver`` how C-GET brings it in.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from pydicom.datadict import dictionary_VR, tag_for_keyword

from pacs.core.attributes import INDEXED, Level
from pacs.core.caller import Caller
from pacs.core.errors import EntryConflicts, EntryNotFound
from pacs.core.poll_ports import FailedInstance, LastRun, Memory, MemoryCounts
from pacs.core.polling import Poll
from pacs.core.ports import AuditTrail, Records
from pacs.core.records import Job, Peer

RUN = "poll.run"
"""The kind of job. Its queue is ``poll:`` and the peer's AE title: one at a time per peer, over all nodes."""

LONGEST_WINDOW_DAYS = 36_500
MOST_FILTERS = 32
LONGEST_NAME = LONGEST_FILTER = 64
MOST_FAILED_SHOWN = 1_000
OUR_OWN_KEYS = frozenset(
    {
        "QueryRetrieveLevel",
        "SpecificCharacterSet",
        "StudyInstanceUID",
        "StudyDate",
        "StudyTime",
        "NumberOfStudyRelatedInstances",
        "SOPClassesInStudy",
    }
)
_NOT_A_STUDYS = {
    one.keyword: one.level for one in INDEXED if one.level in (Level.SERIES, Level.IMAGE)
}
_TEXT_VRS = frozenset(
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UI", "UT", "UC"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PollWork:
    """Run this poll, also where it is disabled if somebody ``asked`` for it; the payload of ``RUN``."""

    poll: str
    asked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A poll, how it ended last and what is remembered of its peer."""

    poll: Poll
    last_run: LastRun | None
    counts: MemoryCounts
    failed: Sequence[FailedInstance]


class PollRows(Protocol):
    """Where polls are kept."""

    def list(self) -> Sequence[Poll]: ...
    def put(self, poll: Poll) -> None: ...
    def remove(self, name: str) -> None: ...
    def last_runs(self) -> Mapping[str, LastRun]: ...


class PeerRows(Protocol):
    """Where peers are kept."""

    def list(self) -> Sequence[Peer]: ...


class Polls:
    """What an admin does with polls; each change is on record.

    ``check_cron`` raises ``SettingsInvalid``; ``go_on`` ends the hold of a queue.
    """

    def __init__(
        self,
        rows: PollRows,
        peers: PeerRows,
        memory: Memory,
        *,
        records: Records,
        audit: AuditTrail,
        check_cron: Callable[[str], None],
        go_on: Callable[[str], None],
    ) -> None:
        self._rows = rows
        self._peers = peers
        self._memory = memory
        self._records = records
        self._audit = audit
        self._check_cron = check_cron
        self._go_on = go_on

    def list(self, caller: Caller) -> Sequence[tuple[Poll, LastRun | None]]:
        """All polls by name, and how each ended last."""
        last = self._rows.last_runs()
        return [(one, last.get(one.name)) for one in self._rows.list()]

    def find(self, caller: Caller, name: str) -> Poll:
        """The poll of that name. Raises ``EntryNotFound``."""
        for one in self._rows.list():
            if one.name == name:
                return one
        raise EntryNotFound(f"no poll is named {name}")

    def show(self, caller: Caller, name: str) -> Shown:
        """Everything of one poll. Raises ``EntryNotFound``."""
        poll = self.find(caller, name)
        return Shown(
            poll=poll,
            last_run=self._rows.last_runs().get(name),
            counts=self._memory.counts(poll.ae_title),
            failed=self._memory.failed(poll.ae_title, MOST_FAILED_SHOWN),
        )

    def add(self, caller: Caller, poll: Poll) -> Poll:
        """Add a poll, or change the one of that name.

        Raises ``EntryNotFound`` for an unknown peer, ``EntryConflicts`` or
        ``SettingsInvalid`` for what cannot be one.
        """
        polled_peer(self._peers.list(), poll)
        if not poll.name.strip() or len(poll.name) > LONGEST_NAME or not poll.name.isprintable():
            raise EntryConflicts(f"a poll's name has 1 to {LONGEST_NAME} printable characters")
        if not 0 <= poll.window_days <= LONGEST_WINDOW_DAYS:
            raise EntryConflicts(f"a window has 0 to {LONGEST_WINDOW_DAYS} days before today")
        if poll.max_instances < 1:
            raise EntryConflicts("a run fetches at least one instance")
        _check_filters(poll.filters)
        if poll.cron:
            self._check_cron(poll.cron)
        self._rows.put(poll)
        self._audit.record("poll-changed", caller, **_on_record(poll))
        return poll

    def remove(self, caller: Caller, name: str) -> None:
        """Remove a poll; what its peer has delivered stays remembered. Raises ``EntryNotFound``."""
        self._rows.remove(name)
        self._audit.record("poll-removed", caller, poll=name)

    def enable(self, caller: Caller, name: str, active: bool) -> Poll:
        """Let a poll run by its schedule, or not. Raises ``EntryNotFound``."""
        poll = replace(self.find(caller, name), active=active)
        self._rows.put(poll)
        self._audit.record("poll-changed", caller, **_on_record(poll))
        return poll

    def run(self, caller: Caller, name: str, *, now: bool) -> None:
        """Ask for a run; with ``now`` also where the peer is left alone for a while. Raises ``EntryNotFound``."""
        poll = self.find(caller, name)
        job = job_of(poll, asked=True, hastens=now, cause=caller.association)
        with self._records.transaction() as unit:
            unit.enqueue(job)
            if now:
                self._go_on(job.queue)
        self._audit.record("poll-asked", caller, poll=name)

    def retry(self, caller: Caller, name: str, *, gone: bool = False) -> int:
        """Try anew what the poll's peer did not deliver; gives how many instances. Raises ``EntryNotFound``.

        With ``gone`` what came before and is no longer held is fetched again, too.
        """
        poll = self.find(caller, name)
        again = self._memory.retry(poll.ae_title, gone=gone)
        self._audit.record("poll-retried", caller, poll=name, instances=again, gone=gone)
        return again


def job_of(poll: Poll, *, asked: bool = False, hastens: bool = False, cause: str = "") -> Job:
    """The job of one run: alone at its peer, and waiting once."""
    return Job(
        kind=RUN,
        payload=json.dumps(asdict(PollWork(poll=poll.name, asked=asked))),
        queue=f"poll:{poll.ae_title}",
        alone=True,
        hastens=hastens,
        unique_key=f"{RUN}:{poll.name}",
        cause=cause,
    )


def polled_peer(peers: Sequence[Peer], poll: Poll) -> Peer:
    """The peer of a poll. Raises ``EntryNotFound`` where there is none."""
    for one in peers:
        if one.ae_title == poll.ae_title:
            return one
    raise EntryNotFound(f"no peer is named {poll.ae_title}; add it with 'pacs peer add'")


def _check_filters(filters: Sequence[tuple[str, str]]) -> None:
    """Raise ``EntryConflicts`` for what is no key of a C-FIND at STUDY level."""
    if len(filters) > MOST_FILTERS:
        raise EntryConflicts(f"a poll has at most {MOST_FILTERS} keys")
    for keyword, value in filters:
        tag = tag_for_keyword(keyword)
        if tag is None or dictionary_VR(tag) not in _TEXT_VRS:
            raise EntryConflicts(f"{keyword} is no DICOM keyword of text, so it cannot be matched")
        if keyword in OUR_OWN_KEYS:
            raise EntryConflicts(f"{keyword} is a key the poll itself gives")
        if keyword in _NOT_A_STUDYS:
            level = _NOT_A_STUDYS[keyword].value
            raise EntryConflicts(f"{keyword} is a key of {level} level, studies have none")
        if not value or len(value) > LONGEST_FILTER or not value.isprintable():
            raise EntryConflicts(f"{keyword} needs a value of 1 to {LONGEST_FILTER} characters")
    if len({keyword for keyword, _ in filters}) != len(filters):
        raise EntryConflicts("a key is given once")


def _on_record(poll: Poll) -> Mapping[str, object]:
    """What the audit trail says of a poll: which keys there are, not their values, which may be a patient's."""
    return {
        "poll": poll.name,
        "peer": poll.ae_title,
        "cron": poll.cron,
        "window_days": poll.window_days,
        "by": poll.by.value,
        "keys": sorted(keyword for keyword, _ in poll.filters),
        "max_instances": poll.max_instances,
        "active": poll.active,
    }
