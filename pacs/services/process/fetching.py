"""What a workitem names and is not held here, fetched by C-GET from where the workitem says. PS3.4 Section C.4.3.

Decides who may be asked for whom and what is missing. What comes is taken in as
if its sender had stored it, for whoever made the workitem; what is held at all
of a series or study that is named whole is taken to be whole.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from pacs.core.caller import Caller, Right, on_behalf
from pacs.core.errors import PeerRefused, PeerUnreachable, ProcessingRefused
from pacs.core.identifiers import (
    AETitle,
    Registrant,
    SeriesInstanceUID,
    SOPClassUID,
    SOPInstanceUID,
    StudyInstanceUID,
)
from pacs.core.poll_ports import Expected, PolledPeers, Wanted
from pacs.core.ports import RetrieveIndex
from pacs.core.records import Peer, Snapshot
from pacs.services.gate import LOCAL
from pacs.services.poll.receiver import IngestReceiver
from pacs.services.process.sources import selection_of
from pacs.services.process.standing import is_admin
from pacs.services.process.words import Input, Reference

Cancelled = Callable[[], bool]


class Fetching:
    """Brings images here. Safe to use from many threads."""

    def __init__(
        self,
        *,
        index: RetrieveIndex,
        peers: PolledPeers,
        receiver: Callable[[Caller, Cancelled], IngestReceiver],
        local_issuer: str,
        uids_per_request: int,
    ) -> None:
        self._index = index
        self._peers = peers
        self._receiver = receiver
        self._local_issuer = local_issuer
        self._uids_per_request = uids_per_request

    def fetch(
        self, caller: Caller, one: Input, snapshot: Snapshot, cancelled: Cancelled, *, most: int
    ) -> None:
        """Have what is missing of ``one`` sent, from the first place that has it.

        Raises ``PeerUnreachable`` where something is missing still and a place could not be asked;
        whether all is there now is for the index to say.
        """
        away: PeerUnreachable | None = None
        for ae_title in one.retrieve_ae_titles:
            missing = self._missing(caller, one, most)
            peer = snapshot.peers.get(ae_title)
            if missing is None or peer is None or not _may_ask(caller, peer, snapshot):
                continue
            try:
                self._ask(
                    _for_whom(caller, peer, snapshot, self._local_issuer),
                    peer,
                    missing,
                    cancelled,
                    most,
                )
            except PeerUnreachable as error:
                away = error
            except PeerRefused:
                continue  # it has nothing for us; perhaps the next has
        if away is not None and self._missing(caller, one, most) is not None:
            raise away

    def _missing(self, caller: Caller, one: Input, most: int) -> Input | None:
        """What is not held of it: those of its instances, or all of it; ``None`` where nothing is."""
        chosen = self._index.select(selection_of(one), caller.visibility, most)
        if not one.references:
            return None if chosen else one
        held = {each.sop_instance_uid for each in self._index.fetch([row for row, _, _ in chosen])}
        left = [each for each in one.references if each.sop_instance_uid not in held]
        return replace(one, references=left) if left else None

    def _ask(
        self, caller: Caller, peer: Peer, missing: Input, cancelled: Cancelled, most: int
    ) -> None:
        study = StudyInstanceUID(missing.study_instance_uid)
        there = missing.references
        if not there or not all(each.sop_class_uid for each in there):
            there = self._listed(peer, missing)
        if len(there) > most:
            raise ProcessingRefused(f"more than {most} images: name fewer")
        if not there:
            return
        classes = sorted({SOPClassUID(each.sop_class_uid) for each in there if each.sop_class_uid})
        receiver = self._receiver(caller, cancelled)
        with self._peers.getting(peer, Expected(sop_class_uids=tuple(classes)), receiver) as open_:
            for wanted in self._requests(study, missing):
                open_.fetch(wanted, cancelled)
        if receiver.failure is not None:
            raise receiver.failure

    def _listed(self, peer: Peer, missing: Input) -> Sequence[Reference]:
        """What the peer says that it has of it."""
        named = {one.sop_instance_uid for one in missing.references}
        with self._peers.asking(peer) as open_:
            listed = open_.instances(StudyInstanceUID(missing.study_instance_uid))
        return [
            Reference(sop_class_uid=one.sop_class_uid or "", sop_instance_uid=one.sop_instance_uid)
            for one in listed.there
            if missing.series_instance_uid in ("", one.series_instance_uid)
            and (not named or one.sop_instance_uid in named)
        ]

    def _requests(self, study: StudyInstanceUID, missing: Input) -> Iterator[Wanted]:
        series = SeriesInstanceUID(missing.series_instance_uid) or None
        uids = [SOPInstanceUID(one.sop_instance_uid) for one in missing.references]
        if not uids:
            yield Wanted(study_instance_uid=study, series_instance_uid=series)
        for start in range(0, len(uids), self._uids_per_request):
            yield Wanted(
                study_instance_uid=study,
                series_instance_uid=series,
                sop_instance_uids=tuple(uids[start : start + self._uids_per_request]),
            )


def _may_ask(caller: Caller, peer: Peer, snapshot: Snapshot) -> bool:
    """Tell whether images may be fetched there for this caller: its own device, or one its contract names.

    A peer that is nobody's trusts this archive, not whoever asks it: it is asked for those only
    that an admin lets have images moved there, and where there are no contracts.
    """
    if peer.subscriber is None:
        theirs = caller.destinations is None or AETitle(peer.ae_title) in caller.destinations
    else:
        theirs = peer.subscriber == caller.subscriber or is_admin(caller)
    may_call = snapshot.may_receive(peer, datetime.now(UTC))
    return theirs and may_call and Right.REGISTER in caller.rights


def _for_whom(caller: Caller, peer: Peer, snapshot: Snapshot, local_issuer: str) -> Caller:
    """Who registers what comes: the caller; for an admin the peer's subscriber, or loopback's."""
    owner = (peer.subscriber or LOCAL) if is_admin(caller) else caller.subscriber
    contract = snapshot.contracts.get(owner)
    return replace(
        on_behalf(Registrant(owner), "process"),
        ae_title=AETitle(peer.ae_title),
        address=peer.host,
        issuer_of_patient_id=local_issuer if contract is None else contract.issuer_of_patient_id,
    )
