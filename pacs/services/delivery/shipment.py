"""Sending some instances to one peer, whoever asks: C-MOVE and forwarding alike. PS3.4 Annex B, Section C.4.2.

Owns how the instances are spread over associations and when there is none any
more. Refuses to choose the instances, to count them and to try again.

    shipment = shipping.shipment(peer, chosen, originator=None, preparation=some, associations=2)
    with closing(shipment.sent(stopped)) as outcomes:
        for one in outcomes:  # a Shipped, or None now and then while nothing happens
            ...
    never_begun = list(shipment.left())

``chosen`` is what ``RetrieveIndex.select`` gives. ``sent`` raises
``PeerUnreachable`` where no association could be opened at all, and
``RecordsFailed``.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

from config.settings import Retrieve as RetrieveSettings
from pacs.core.errors import PeerUnreachable
from pacs.core.identifiers import ObjectId, SOPClassUID, TransferSyntaxUID
from pacs.core.ports import InstanceStore, RetrieveIndex
from pacs.core.records import Held, Originator, Peer, PeerEncoding
from pacs.core.sending_ports import Delivery, Sender, Transcoder
from pacs.services.delivery.ahead import Ahead
from pacs.services.delivery.choice import Choice
from pacs.services.delivery.contexts import FALLBACKS, Chosen, Group, associations_for
from pacs.services.delivery.crew import Crew, Opening
from pacs.services.delivery.fate import Fate, Shipped
from pacs.services.delivery.payloads import Payloads, Preparation, Prepare
from pacs.services.delivery.reduced import GetProcessor, Reduction
from pacs.services.delivery.reopening import Reopening
from pacs.services.delivery.waiting import Pages, Waiting
from pacs.services.delivery.way import Way

__all__ = ["Fate", "Pages", "Preparation", "Prepare", "Shipment", "Shipped", "Shipping"]

_WORTH_AN_ASSOCIATION = 4
"""So many instances justify one more association to the same peer."""

Stopped = Callable[[], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Load:
    """What goes over the same presentation contexts."""

    waiting: Waiting
    opening: Opening
    associations: int


class Shipment:
    """Some instances on their way to one peer. For one thread, used once."""

    def __init__(self, loads: Sequence[_Load]) -> None:
        self.stopped = False
        """Whether ``sent`` ended early because it was asked to."""
        self._loads = loads
        self._crew: Crew | None = None

    def sent(self, stopped: Stopped = lambda: False) -> Generator[Shipped | None, None, None]:
        """Send all; yield each outcome as it comes, and ``None`` now and then while none does.

        ``stopped`` is asked between the yields, by the same thread. Once it
        says yes nothing further is begun; what is under way gets two seconds
        and is still yielded. Closing the generator aborts it. Raises
        ``PeerUnreachable`` where no association was opened at all, with
        everything left, and ``RecordsFailed``.
        """
        reached = told = False
        for load in self._loads:
            self.stopped = self.stopped or stopped()
            if self.stopped:
                return
            crew = self._crew = Crew(
                load.opening, load.waiting, load.associations, untold=load.waiting.untold
            )
            with closing(crew.sent()) as outcomes:
                for one in outcomes:
                    yield one
                    if not told and stopped():
                        self.stopped = told = True
                        crew.stop()
            reached = reached or crew.opened
            if not (reached or self.stopped or load.waiting.empty):
                raise crew.trouble or PeerUnreachable("no association could be opened")

    def pause(self) -> None:
        """Begin nothing further; what is under way gets the time it needs. Called where ``stopped`` may be."""
        self.stopped = True
        if self._crew is not None:
            self._crew.pause()

    def left(self) -> Iterator[Held]:
        """Take what was never begun, once ``sent`` is over. Raises ``RecordsFailed``."""
        for load in self._loads:
            while (held := load.waiting.take()) is not None:
                yield held

    def vanished(self) -> int:
        """Count those found deleted since this was last asked: they will have no outcome."""
        return sum(load.waiting.vanished() for load in self._loads)


class Shipping:
    """Sends to peers, and on associations that are open already; for many threads, one a process."""

    def __init__(
        self,
        *,
        index: RetrieveIndex,
        store: InstanceStore,
        sender: Sender,
        transcoder: Transcoder,
        settings: RetrieveSettings,
        processor: GetProcessor,
    ) -> None:
        self._index = index
        self._store = store
        self._sender = sender
        self._transcoder = transcoder
        self._settings = settings
        self._processor = processor
        self._ahead = Ahead(settings)

    def close(self) -> None:
        """Make nothing ahead any more."""
        self._ahead.close()

    def shipment(
        self,
        peer: Peer,
        chosen: Sequence[Chosen],
        *,
        originator: Originator | None = None,
        preparation: Preparation | None = None,
        associations: int | None = None,
        pages: Pages | None = None,
    ) -> Shipment:
        """Make ready to send the chosen rows to ``peer``; nothing is opened before ``sent``.

        A ``preparation`` gets each instance that it applies to and its stored bytes
        and yields what is sent instead, in any syntax: a changed file that lives as
        long as the block. It runs ahead of the sending, in several threads; a
        ``PacsError`` or ``OSError`` of its makes that instance ``Fate.UNSENT``.
        ``associations`` are those of the peer unless given. ``pages`` says how
        far ahead rows are read, and who is told of them before they are begun.
        """
        most = peer.associations if associations is None else associations
        choice = Choice(peer.encoding, self._transcoder, self._settings)

        def load(group: Group) -> _Load:
            waiting = Waiting(self._index, group.rows, pages)
            count = max(1, min(most, len(group.rows) // _WORTH_AN_ASSOCIATION))
            payloads = self._payloads(choice, preparation, associations=count)

            @contextmanager
            def opening() -> Iterator[Way]:
                with Reopening(lambda: self._sender.open(peer, group.offers)) as delivery:
                    yield Way(waiting, delivery, payloads, originator)

            return _Load(waiting=waiting, opening=opening, associations=count)

        besides = () if preparation is None else preparation.sop_classes
        groups = associations_for(chosen, choice.wanted, besides)
        return Shipment([load(group) for group in groups])

    def way(
        self,
        delivery: Delivery,
        waiting: Waiting,
        encoding: PeerEncoding,
        preparation: Preparation | None = None,
    ) -> Way:
        """Send on an association that is open (C-GET): of what was accepted there, what fits best."""
        choice = Choice(encoding, self._transcoder, self._settings)
        return Way(waiting, delivery, self._payloads(choice, preparation, associations=1), None)

    def reduction(self, max_matrix: int, sides_px: Mapping[ObjectId, int]) -> Reduction:
        """Begin to reduce what is above a bound of pixel density, for one retrieve."""
        return Reduction(self._processor, max_matrix, sides_px)

    def preferred(
        self, encoding: PeerEncoding, sop_class: SOPClassUID
    ) -> Sequence[TransferSyntaxUID]:
        """List what is worth choosing for a class where one context proposes several syntaxes."""
        choice = Choice(encoding, self._transcoder, self._settings)
        return choice.wanted(sop_class, FALLBACKS)

    def waiting(self, chosen: Sequence[Chosen]) -> Waiting:
        """What is chosen, to be taken in order."""
        return Waiting(self._index, [row for row, _, _ in chosen])

    def _payloads(
        self, choice: Choice, preparation: Preparation | None, *, associations: int
    ) -> Payloads:
        return Payloads(
            store=self._store,
            transcoder=self._transcoder,
            choice=choice,
            ahead=self._ahead,
            preparation=preparation,
            most_ahead=max(1, self._ahead.most // associations),
        )
