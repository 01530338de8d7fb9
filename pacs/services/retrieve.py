"""Delivering instances to whoever asked or to another peer. PS3.4 Sections C.4.2 and C.4.3.

Decides what is delivered, in which encoding and in which order; knows neither
sockets nor tables. Bytes are streamed from the file wherever the receiver
takes the stored transfer syntax.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from config.settings import Retrieve as RetrieveSettings
from pacs.core.caller import Caller
from pacs.core.errors import (
    DestinationUnknown,
    IdentifierInvalid,
    PacsError,
    PeerUnreachable,
    TooManyMatches,
    TranscodingFailed,
)
from pacs.core.identifiers import AETitle, SOPClassUID, TransferSyntaxUID
from pacs.core.ports import (
    Delivery,
    InstanceStore,
    Records,
    RetrieveIndex,
    Sender,
    Snapshots,
    Transcoder,
)
from pacs.core.records import (
    Held,
    Originator,
    Payload,
    Peer,
    Progress,
    Selection,
    SendOutcome,
    Usage,
)

EXPLICIT_LITTLE = TransferSyntaxUID("1.2.840.10008.1.2.1")
IMPLICIT_LITTLE = TransferSyntaxUID("1.2.840.10008.1.2")
FALLBACKS = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)
_CONTEXTS = 128  # PS3.8 Section 9.3.2.2: odd ids 1 to 255
_ISSUER_TAG = 0x00100021
_PAGE = 100

Chosen = tuple[int, SOPClassUID, TransferSyntaxUID]


class Retrieve:
    """Delivers instances. Safe to use from many threads."""

    def __init__(
        self,
        *,
        index: RetrieveIndex,
        records: Records,
        store: InstanceStore,
        sender: Sender,
        transcoder: Transcoder,
        snapshots: Snapshots,
        settings: RetrieveSettings,
    ) -> None:
        self._index = index
        self._records = records
        self._store = store
        self._sender = sender
        self._transcoder = transcoder
        self._snapshots = snapshots
        self._settings = settings

    def move(
        self, caller: Caller, selection: Selection, destination: AETitle, originator: Originator
    ) -> Iterator[Progress]:
        """Send the selection to the peer ``destination``; yields the counters, first of all untouched.

        Raises ``DestinationUnknown``, ``TooManyMatches``, ``IdentifierInvalid``
        or ``RecordsFailed`` before the first yield. What cannot be sent is
        counted as failed and named.
        """
        peer = self._snapshots.current().peers.get(destination)
        if peer is None:
            raise DestinationUnknown
        chosen = self._select(caller, selection)
        tally = Tally(len(chosen))
        with self._usage_of(caller, tally, str(destination)):
            yield tally.progress()
            for group in associations_for(chosen):
                yield from self._move_group(peer, group, originator, tally)

    def _move_group(
        self, peer: Peer, group: "Group", originator: Originator, tally: "Tally"
    ) -> Iterator[Progress]:
        waiting = self._held(group.rows, tally)
        try:
            with self._sender.open(peer, group.offers) as delivery:
                for held in waiting:
                    yield self._send(held, delivery, originator, tally)
        except PeerUnreachable:
            for held in waiting:
                tally.count(SendOutcome.FAILURE, held)
            yield tally.progress()

    def get(self, caller: Caller, selection: Selection, delivery: Delivery) -> Iterator[Progress]:
        """Send the selection on the association it was asked on; yields like ``move``."""
        chosen = self._select(caller, selection)
        tally = Tally(len(chosen))
        with self._usage_of(caller, tally, caller.ae_title):
            yield tally.progress()
            for held in self._held([row for row, _, _ in chosen], tally):
                yield self._send(held, delivery, None, tally)

    def _select(self, caller: Caller, selection: Selection) -> Sequence[Chosen]:
        limit = self._settings.max_instances
        # The same Patient ID or UID of two registrants is two things: never deliver both as one.
        # Who sees only one registrant's need not be asked about.
        if self._sees_several(caller) and self._index.is_ambiguous(selection, caller.visibility):
            raise IdentifierInvalid(
                "what is asked for belongs to several registrants",
                offending_elements=(_ISSUER_TAG,),
            )
        chosen = self._index.select(selection, caller.visibility, limit)
        if len(chosen) > limit:
            raise TooManyMatches
        return chosen

    def _sees_several(self, caller: Caller) -> bool:
        return caller.visibility.everything or len(caller.visibility.registrants) > 1

    @contextmanager
    def _usage_of(self, caller: Caller, tally: "Tally", receiver: str) -> Iterator[None]:
        """Record what was delivered, however the retrieve ends."""
        try:
            yield
        finally:
            if tally.completed or tally.warning:
                with self._records.transaction() as unit:
                    for kind, amount in (
                        ("deliver", tally.completed + tally.warning),
                        ("deliver-bytes", tally.sent_bytes),
                    ):
                        unit.record_usage(
                            Usage(
                                subscriber=caller.subscriber,
                                kind=kind,
                                amount=amount,
                                subject=receiver,
                            )
                        )

    def _held(self, rows: Sequence[int], tally: "Tally") -> Iterator[Held]:
        """Read the rows a page at a time, so that memory does not grow with the selection."""
        for start in range(0, len(rows), _PAGE):
            some = rows[start : start + _PAGE]
            page = self._index.fetch(some)
            tally.vanished(len(some) - len(page))
            yield from page

    def _send(
        self, held: Held, delivery: Delivery, originator: Originator | None, tally: "Tally"
    ) -> Progress:
        """One sub-operation, counted. Raises ``PeerUnreachable`` when no further one can follow."""
        try:
            outcome = self._deliver(held, delivery, originator)
        except PeerUnreachable:
            tally.count(SendOutcome.FAILURE, held)
            raise
        tally.count(outcome, held)
        return tally.progress()

    def _deliver(
        self, held: Held, delivery: Delivery, originator: Originator | None
    ) -> SendOutcome:
        try:
            with self._payload(held, delivery.accepted(held.sop_class_uid)) as payload:
                return delivery.send(payload, originator)
        except PeerUnreachable:
            raise
        except (PacsError, OSError):
            return SendOutcome.FAILURE

    @contextmanager
    def _payload(self, held: Held, accepted: Sequence[TransferSyntaxUID]) -> Iterator[Payload]:
        """The stored bytes where the receiver takes them, converted ones otherwise."""
        path = self._store.path(held.place)
        with self._store.open(held.place):
            pass  # a missing file is InstanceNotFound here, not in the middle of sending
        if held.transfer_syntax_uid in accepted:
            yield _payload_of(held, held.transfer_syntax_uid, path, held.place.data_set_offset)
            return
        for target in (*FALLBACKS, *accepted):
            if target in accepted and self._transcoder.convertible(
                held.transfer_syntax_uid, target
            ):
                with self._transcoder.convert(
                    path, held.place.data_set_offset, held.transfer_syntax_uid, target
                ) as converted:
                    yield _payload_of(held, target, converted, 0)
                return
        raise TranscodingFailed


def _payload_of(held: Held, syntax: TransferSyntaxUID, path: str, offset: int) -> Payload:
    return Payload(
        sop_class_uid=held.sop_class_uid,
        sop_instance_uid=held.sop_instance_uid,
        transfer_syntax_uid=syntax,
        path=path,
        offset=offset,
    )


class Tally:
    """The counters of one retrieve."""

    def __init__(self, total: int) -> None:
        self._remaining = total
        self.completed = 0
        self.failed = 0
        self.warning = 0
        self.sent_bytes = 0
        self._failed_uids: list[str] = []

    def count(self, outcome: SendOutcome, held: Held) -> None:
        """One sub-operation is over."""
        self._remaining -= 1
        if outcome is SendOutcome.FAILURE:
            self.failed += 1
            self._failed_uids.append(held.sop_instance_uid)
            return
        self.sent_bytes += held.place.size_bytes
        if outcome is SendOutcome.WARNING:
            self.warning += 1
        else:
            self.completed += 1

    def vanished(self, count: int) -> None:
        """Instances deleted since they were selected: no longer part of the answer."""
        self._remaining -= count

    def progress(self) -> Progress:
        """The counters as they stand."""
        return Progress(
            remaining=self._remaining,
            completed=self.completed,
            failed=self.failed,
            warning=self.warning,
            failed_sop_instance_uids=tuple(self._failed_uids),
        )


class Group:
    """What one association carries: presentation contexts and the rows that need them."""

    def __init__(self) -> None:
        self.offers: list[tuple[SOPClassUID, tuple[TransferSyntaxUID, ...]]] = []
        self.rows: list[int] = []


def associations_for(chosen: Sequence[Chosen]) -> list[Group]:
    """Spread a selection over associations of at most 128 presentation contexts each.

    Each SOP Class gets one context per stored syntax, and explicit and
    implicit little endian ones of their own, so that whichever the receiver
    takes is known exactly.
    """
    by_class: dict[SOPClassUID, dict[TransferSyntaxUID, None]] = {}
    for _, sop_class, syntax in chosen:
        by_class.setdefault(sop_class, {})[syntax] = None
    groups: list[Group] = []
    group_of: dict[tuple[SOPClassUID, TransferSyntaxUID], Group] = {}
    for sop_class, stored in by_class.items():
        syntaxes = list(stored)
        step = _CONTEXTS - len(FALLBACKS)
        for start in range(0, len(syntaxes), step):
            some = syntaxes[start : start + step]
            needed = list(dict.fromkeys((*some, *FALLBACKS)))
            if not groups or len(groups[-1].offers) + len(needed) > _CONTEXTS:
                groups.append(Group())
            groups[-1].offers += [(sop_class, (one,)) for one in needed]
            group_of.update({(sop_class, one): groups[-1] for one in some})
    for row, sop_class, syntax in chosen:
        group_of[sop_class, syntax].rows.append(row)
    return groups
