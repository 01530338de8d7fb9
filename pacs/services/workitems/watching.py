"""Who is told of workitems: of one, of all that come, of those that match. PS3.4 Section CC.2.3.

Owns the subscription states of an AE (Table CC.2.3-2). An AE is subscribed by its
own subscriber only, globally to that subscriber's workitems only.
"""

from collections.abc import Sequence
from typing import Final

from pydicom.dataset import Dataset

from pacs.core.caller import Caller
from pacs.core.errors import IdentifierInvalid
from pacs.core.events import Addressee
from pacs.core.identifiers import AETitle
from pacs.core.ports import Unit
from pacs.core.records import Peer
from pacs.core.workitem_errors import (
    ActionUnfit,
    ArgumentInvalid,
    ReceiverUnknown,
    WorkitemsFull,
)
from pacs.core.workitem_ports import GlobalWatch, Watch, WorkitemRow
from pacs.core.workitems import FILTERED_SUBSCRIPTION, GLOBAL_SUBSCRIPTION
from pacs.services.workitems import events
from pacs.services.workitems.desk import Desk
from pacs.services.workitems.encoding import copied, decoded, encoded, tag_of, whole
from pacs.services.workitems.events import EventType
from pacs.services.workitems.matching import Keys, parse

_PAGE_ROWS: Final = 100
_WELL_KNOWN: Final = (GLOBAL_SUBSCRIPTION, FILTERED_SUBSCRIPTION)
_NO_KEYS: Final = (tag_of("ReceivingAE"), tag_of("DeletionLock"))


class Watching:
    """Subscribes, unsubscribes, and tells."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    # --- what watchers ask for --------------------------------------------------------------

    def subscribe(
        self,
        caller: Caller,
        uid: str,
        receiving_ae: str,
        *,
        deletion_lock: bool,
        keys: Dataset | None = None,
    ) -> None:
        """Have an AE told from now on, and at once how things stand. ``keys`` are of a filtered one.

        Raises ``ReceiverUnknown``, ``WorkitemUnknown``, ``WorkitemsFull`` or ``ArgumentInvalid``.
        """
        to = self._receiver(caller, receiving_ae)
        watch = Watch(addressee=to, deletion_lock=deletion_lock)
        if uid in _WELL_KNOWN:
            filtered = keys if uid == FILTERED_SUBSCRIPTION else None
            self._subscribe_all(watch, self._encoded_keys(uid, filtered))
            return
        with self._desk.records.transaction() as unit:
            row = self._desk.locked(caller, uid)
            others = [one for one in self._desk.watches.watches(row.number) if one.addressee != to]
            if len(others) >= self._desk.settings.max_watchers:
                raise WorkitemsFull
            self._desk.watches.watch(row.number, watch)
            self._report(unit, row, [to])

    def unsubscribe(self, caller: Caller, uid: str, receiving_ae: str) -> None:
        """Have an AE told no more of a workitem, or of any; its deletion locks go.

        Raises ``ReceiverUnknown`` or ``WorkitemUnknown``.
        """
        to = self._receiver(caller, receiving_ae)
        with self._desk.records.transaction():
            if uid in _WELL_KNOWN:
                self._desk.watches.alone()
                self._desk.watches.leave(to)
            else:
                self._desk.watches.unwatch(self._desk.locked(caller, uid).number, to)

    def suspend(self, caller: Caller, uid: str, receiving_ae: str) -> None:
        """Have an AE told no more of what comes. Raises ``ActionUnfit`` or ``ReceiverUnknown``."""
        if uid not in _WELL_KNOWN:
            self._desk.found(caller, uid)
            raise ActionUnfit
        to = self._receiver(caller, receiving_ae)
        with self._desk.records.transaction():
            self._desk.watches.alone()
            self._desk.watches.suspend(to)

    def _receiver(self, caller: Caller, receiving_ae: str) -> Addressee:
        """Nobody makes us call another's device: it has to be the caller's own AE, or a peer of its."""
        ae_title = AETitle(receiving_ae.strip())
        if not ae_title:
            raise ArgumentInvalid(attributes=(tag_of("ReceivingAE"),))
        peer = self._desk.snapshots.current().peers.get(ae_title)
        if ae_title != caller.ae_title and (peer is None or not self._owns(caller, peer)):
            raise ReceiverUnknown
        return Addressee(ae_title=ae_title, registrant=caller.registrant)

    def _owns(self, caller: Caller, peer: Peer) -> bool:
        """A peer that is nobody's is for those without a contract: loopback and the administrator."""
        if peer.subscriber is None:
            return caller.subscriber not in self._desk.snapshots.current().contracts
        return peer.subscriber == caller.subscriber

    def _encoded_keys(self, uid: str, keys: Dataset | None) -> bytes:
        if uid != FILTERED_SUBSCRIPTION:
            return b""
        asked = copied(keys) if keys is not None else Dataset()
        for tag in _NO_KEYS:
            asked.pop(tag, None)
        try:
            if not self._keys(asked).matched:
                raise ArgumentInvalid
        except IdentifierInvalid as error:
            raise ArgumentInvalid(attributes=error.offending_elements) from error
        return encoded(asked, most_bytes=self._desk.settings.max_bytes)

    def _keys(self, keys: Dataset) -> Keys:
        return parse(keys, max_uids=self._desk.max_uids)

    def _subscribe_all(self, watch: Watch, encoded_keys: bytes) -> None:
        """First what comes, then page by page what is there: no store waits for thousands of workitems."""
        desk, to = self._desk, watch.addressee
        wanted = GlobalWatch(addressee=to, deletion_lock=watch.deletion_lock, keys=encoded_keys)
        with desk.records.transaction():
            desk.watches.alone()
            others = [one for one in desk.watches.everywhere(to.registrant) if one.addressee != to]
            if len(others) >= desk.settings.max_watchers:
                raise WorkitemsFull
            desk.watches.watch_all(wanted)
            newest = desk.watches.newest(to.registrant)  # later ones find the watch when they come
        keys = self._keys(decoded(encoded_keys)) if encoded_keys else None
        last = 0
        while numbers := desk.watches.unwatched(to, last, newest, _PAGE_ROWS):
            last = numbers[-1]
            rows = [
                one for one in desk.rows.page(numbers) if keys is None or keys.match(whole(one))
            ]
            if rows and not self._join(wanted, keys, rows):
                return

    def _join(self, wanted: GlobalWatch, keys: Keys | None, matched: Sequence[WorkitemRow]) -> bool:
        """Let a global subscription take hold of workitems that are there; false where it is over.

        What has changed since it ``matched`` is looked at again. Only with a lock is its state
        told (Section CC.2.4.3): who wants to keep it must know it.
        """
        desk = self._desk
        watch = Watch(addressee=wanted.addressee, deletion_lock=wanted.deletion_lock)
        seen = {one.number: one for one in matched}
        with desk.records.transaction() as unit:
            if not desk.watches.stands(wanted):
                return False
            for row in desk.rows.page(list(seen), locked=True):
                if row != seen[row.number] and keys is not None and not keys.match(whole(row)):
                    continue
                if desk.watches.join(row.number, watch) and watch.deletion_lock:
                    self._report(unit, row, [watch.addressee])
        return True

    # --- telling them -----------------------------------------------------------------------

    def created(self, unit: Unit, row: WorkitemRow, data_set: Dataset) -> None:
        """Let who watches everything watch a workitem that has just been added, and tell them."""
        watches = self._desk.watches
        told: list[Addressee] = []
        for one in watches.everywhere(row.registrant):
            if one.keys and not self._keys(decoded(one.keys)).match(whole(row)):
                continue
            if len(told) < self._desk.settings.max_watchers:
                watches.watch(
                    row.number, Watch(addressee=one.addressee, deletion_lock=one.deletion_lock)
                )
                told.append(one.addressee)
        self._report(unit, row, told)
        assigned = events.assigned(data_set)
        if assigned is not None:
            self._post(unit, told, row, EventType.ASSIGNED, assigned)

    def tell(self, unit: Unit, row: WorkitemRow, kind: EventType, information: Dataset) -> None:
        """Tell everybody who watches a workitem."""
        to = [one.addressee for one in self._desk.watches.watches(row.number)]
        self._post(unit, to, row, kind, information)

    def _report(self, unit: Unit, row: WorkitemRow, to: list[Addressee]) -> None:
        if to:
            report = events.state_report(decoded(row.data_set), row.state)
            self._post(unit, to, row, EventType.STATE_REPORT, report)

    def _post(
        self,
        unit: Unit,
        to: list[Addressee],
        row: WorkitemRow,
        kind: EventType,
        information: Dataset,
    ) -> None:
        now, snapshot = self._desk.rows.now(), self._desk.snapshots.current()
        told = events.entitled(to, snapshot, now, row.registrant)
        events.post(unit, told, row.uid, kind, information)

    def restarted(self) -> None:
        """Tell everybody who watches anything that the archive has started. Section CC.2.4.3."""
        everybody = self._desk.watches.everybody()
        now, snapshot = self._desk.rows.now(), self._desk.snapshots.current()
        if to := events.entitled(everybody, snapshot, now):
            with self._desk.records.transaction() as unit:
                events.post_restarted(unit, to)
