"""Delivering instances to whoever asked or to another peer. PS3.4 Sections C.4.2 and C.4.3.

Decides what is delivered, in which order and over how many associations;
knows neither sockets nor tables.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from config.settings import Retrieve as RetrieveSettings
from pacs.core.caller import Caller, Visibility
from pacs.core.errors import (
    DestinationUnknown,
    IdentifierInvalid,
    PeerUnreachable,
    TooManyMatches,
)
from pacs.core.identifiers import AETitle, SOPClassUID
from pacs.core.ports import AuditTrail, Gate, Records, RetrieveIndex, Snapshots
from pacs.core.records import Held, Originator, Peer, PeerEncoding, Progress, Selection
from pacs.core.sending_ports import Delivery
from pacs.services.delivery.contexts import EXPLICIT_LITTLE
from pacs.services.delivery.shipment import Shipment, Shipping
from pacs.services.retrieve.account import Account
from pacs.services.retrieve.leave import Leave, covers
from pacs.services.retrieve.tally import Order, Tally

LOGGER = logging.getLogger("pacs.retrieve")

_ISSUER_TAG = 0x00100021
_UIDS_IN_AUDIT = 100  # the count says how many there are
Cancelled = Callable[[], bool]


class Retrieve:
    """Delivers instances. Safe to use from many threads."""

    def __init__(
        self,
        *,
        index: RetrieveIndex,
        records: Records,
        shipping: Shipping,
        snapshots: Snapshots,
        settings: RetrieveSettings,
        audit: AuditTrail,
        gate: Gate,
    ) -> None:
        self._audit = audit
        self._gate = gate
        self._index = index
        self._records = records
        self._shipping = shipping
        self._snapshots = snapshots
        self._settings = settings

    def move(
        self,
        caller: Caller,
        selection: Selection,
        destination: AETitle,
        originator: Originator,
        cancelled: Cancelled,
    ) -> Iterator[Progress]:
        """Send the selection to the peer ``destination``.

        Yields the counters, first of all untouched, then after each
        sub-operation and now and then while none ends, at the end as ``over``. Raises ``DestinationUnknown``,
        ``TooManyMatches``, ``IdentifierInvalid`` or ``RecordsFailed`` before
        the first yield. What cannot be sent is counted as failed and named.
        ``cancelled`` is asked between the yields, by the same thread. Where what the caller
        and the destination may have has changed so that not all of it may be sent any more,
        nothing further is begun: the last one says why, and all that was left has failed.
        """
        peer = self._destination(caller, destination)
        order = self._order(caller, selection)
        tally = Tally(order)
        leave = self._leave(caller, selection, order, destination)
        shipment = self._shipping.shipment(
            peer, order.chosen, originator=originator, preparation=order.preparation
        )
        with self._account_of(caller, tally, destination) as account:
            yield tally.progress()
            tally.withhold()
            yield from self._follow(shipment, tally, account, _stopped(tally, cancelled, leave))
        yield self._last(caller, tally, leave, destination, shipment.left())

    def _follow(
        self, shipment: Shipment, tally: Tally, account: Account, stopped: Cancelled
    ) -> Iterator[Progress]:
        try:
            with closing(shipment.sent(stopped)) as outcomes:
                for one in outcomes:
                    if one is not None:
                        tally.count(one)
                        tally.vanished(shipment.vanished())
                    account.look()
                    if not shipment.stopped:
                        yield tally.progress()
        except PeerUnreachable as failure:
            LOGGER.info("destination-unreachable why=%s", failure)
        if not shipment.stopped:
            for held in shipment.left():
                tally.fail(held)
        tally.vanished(shipment.vanished())

    def get(
        self, caller: Caller, selection: Selection, delivery: Delivery, cancelled: Cancelled
    ) -> Iterator[Progress]:
        """Send the selection on the association it was asked on; yields and stops like ``move``.

        Raises ``PeerUnreachable`` when that association ends.
        """
        order = self._order(caller, selection)
        tally = Tally(order)
        leave = self._leave(caller, selection, order)
        stopped = _stopped(tally, cancelled, leave)
        waiting = self._shipping.waiting(order.chosen)
        sending = self._shipping.way(
            delivery, waiting, self._encoding_of(caller), order.preparation
        )
        with self._account_of(caller, tally, caller.ae_title) as account:
            yield tally.progress()
            tally.withhold()
            with closing(sending) as way:
                for one in way.sent():
                    if one is not None:
                        tally.count(one)
                        tally.vanished(waiting.vanished())
                    account.look()
                    if way.broken:
                        raise PeerUnreachable("the association has ended")
                    if stopped():
                        break
                    yield tally.progress()
            tally.vanished(waiting.vanished())
        yield self._last(caller, tally, leave, caller.ae_title)

    def _leave(
        self,
        caller: Caller,
        selection: Selection,
        order: Order,
        destination: AETitle | None = None,
    ) -> Leave:
        """Make ready to judge again what may be delivered, in a C-MOVE also where it goes."""
        most = self._settings.max_instances
        return Leave(
            self._gate,
            caller,
            may_go=lambda now: destination is None or self._destination(now, destination),
            covers=covers(self._index, selection, caller, order.chosen, most),
        )

    def _last(
        self,
        caller: Caller,
        tally: Tally,
        leave: Leave,
        receiver: AETitle,
        left: Iterable[Held] = (),
    ) -> Progress:
        """End it; where it may not go on what is left has failed.

        That is named where the destination is at fault: to a caller who may not have it, it is not.
        """
        if leave.refusal is None or not tally.remaining:
            return tally.last()
        self._audit.record(
            "delivery-stopped",
            caller,
            cause=str(leave.refusal),
            destination=str(receiver),
            count=tally.remaining,
        )
        if isinstance(leave.refusal, DestinationUnknown):
            for held in left:
                tally.fail(held)
        tally.fail_rest()
        return replace(tally.last(), refusal=leave.refusal)

    def preferred(self, caller: Caller, sop_class_uid: str) -> Sequence[str]:
        """List the syntaxes, best first, in which ``caller`` is to get what is stored uncompressed.

        For contexts that propose several: one of them is chosen before it is known what is retrieved.
        """
        encoding = self._encoding_of(caller)
        return self._shipping.preferred(encoding, SOPClassUID(sop_class_uid))

    def _encoding_of(self, caller: Caller) -> PeerEncoding:
        known = self._snapshots.current().peers.get(AETitle(caller.ae_title))
        return PeerEncoding.AS_STORED if known is None else known.encoding

    def _destination(self, caller: Caller, destination: AETitle) -> Peer:
        """Give the peer of that name, if the caller may have images moved there.

        One of another subscriber is unknown like any other name; only the audit tells them apart.
        """
        snapshot = self._snapshots.newest()
        peer = snapshot.peers.get(destination)
        if peer is None:
            cause = "no such peer"
        elif caller.destinations is not None and destination not in caller.destinations:
            cause = "not among the caller's destinations"
        elif not snapshot.may_receive(peer, datetime.now(UTC)):
            cause = "the contract of its subscriber does not hold"
        else:
            return peer
        self._audit.record("destination-refused", caller, destination=str(destination), cause=cause)
        raise DestinationUnknown(f"{destination}: {cause}")

    def _order(self, caller: Caller, selection: Selection) -> Order:
        """Choose what to deliver, and what of it is to be reduced as the caller's purpose says."""
        limit = self._settings.max_instances
        # The same Patient ID or UID of two registrants is two things: never deliver both as one.
        # Who sees only one registrant's need not be asked about.
        if _sees_several(caller.visibility) and self._index.is_ambiguous(
            selection, caller.visibility
        ):
            raise IdentifierInvalid(
                "what is asked for belongs to several registrants",
                offending_elements=(_ISSUER_TAG,),
            )
        order = self._bounded(caller, selection, limit)
        if order.total > limit:
            raise TooManyMatches
        return order

    def _bounded(self, caller: Caller, selection: Selection, limit: int) -> Order:
        if caller.max_matrix is None:
            return Order(chosen=self._index.select(selection, caller.visibility, limit))
        found = self._index.select_within(selection, caller.visibility, limit, caller.max_matrix)
        if not found.denser:
            return Order(chosen=found.chosen, withheld=found.unmeasured)
        sides_px = {one.object_id: one.side_px for one in found.denser.values()}
        return Order(
            chosen=[
                (row, sop_class, EXPLICIT_LITTLE if row in found.denser else syntax)
                for row, sop_class, syntax in found.chosen
            ],
            withheld=found.unmeasured,
            reduction=self._shipping.reduction(caller.max_matrix, sides_px),
        )

    @contextmanager
    def _account_of(self, caller: Caller, tally: Tally, receiver: AETitle) -> Iterator[Account]:
        """Say what was delivered, study by study, however the retrieve ends."""
        account = Account(self._records, caller, receiver, tally)
        try:
            yield account
        finally:
            self._audit_density(caller, tally)
            account.close()

    def _audit_density(self, caller: Caller, tally: Tally) -> None:
        """Say what a purpose's bound did: how many went reduced, and which did not go at all."""
        bound = {"purpose": caller.purpose, "max_matrix": caller.max_matrix}
        if tally.reduced:
            self._audit.record(
                "delivery-reduced",
                caller,
                **bound,
                count=tally.reduced,
                withheld=len(tally.withheld),
            )
        if tally.withheld:
            self._audit.record(
                "delivery-withheld",
                caller,
                cause="image above the pixel density of the purpose",
                **bound,
                count=len(tally.withheld),
                reduced=tally.reduced,
                sop_instance_uids=tuple(tally.withheld[:_UIDS_IN_AUDIT]),
            )


def _stopped(tally: Tally, cancelled: Cancelled, leave: Leave) -> Cancelled:
    """Ask whether to begin anything further, while there is something."""
    return lambda: bool(tally.remaining) and (cancelled() or not leave.holds())


def _sees_several(visibility: Visibility) -> bool:
    owners = {*visibility.registrants, *(registrant for registrant, _ in visibility.studies)}
    return visibility.everything or len(owners) > 1
