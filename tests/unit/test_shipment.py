"""A shipment: what became of each instance is told apart, and what is made ahead is bounded and cleaned up."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from config.settings import Retrieve
from pacs.core.errors import CoercionFailed, InstanceNotFound, PeerUnreachable, TranscodingFailed
from pacs.core.identifiers import AETitle, SOPClassUID, TransferSyntaxUID
from pacs.core.records import Held, Originator, Payload, Peer, PeerEncoding, Place, SendOutcome
from pacs.services.delivery.shipment import Fate, Preparation, Prepare, Shipment, Shipped, Shipping
from tests.association_fakes import until
from tests.unit.test_choice import CT, EXPLICIT, IMPLICIT, J70, J80
from tests.unit.test_move_crew import held

SIZE_BYTES = 100


class Store:
    """Index and store in one: files of some bytes in a folder, stored in one syntax."""

    def __init__(self, folder: Path, total: int, syntax: TransferSyntaxUID) -> None:
        self.folder, self.total, self.syntax = folder, total, syntax
        folder.mkdir()
        for row in range(total):
            (folder / str(row)).write_bytes(bytes([row % 256]) * SIZE_BYTES)

    def fetch(self, rows: Sequence[int]) -> Sequence[Held]:
        place = held(0).place
        return [
            replace(
                held(row),
                transfer_syntax_uid=self.syntax,
                place=replace(place, name=str(row), size_bytes=SIZE_BYTES),
            )
            for row in rows
        ]

    def path(self, place: Place) -> str:
        return str(self.folder / place.name)

    def open(self, place: Place) -> Any:
        try:
            return Path(self.path(place)).open("rb")
        except OSError as missing:
            raise InstanceNotFound from missing


class Transcoder:
    """Appends the target's UID to the bytes; counts how many results there are at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.asked: list[tuple[str, str]] = []
        self.most = self.running = self.most_running = 0
        self.may_end = threading.Event()
        self.may_end.set()
        self.fails: Callable[[str, str], bool] = lambda name, target: False
        self._lock = threading.Lock()

    def convertible(self, source: TransferSyntaxUID, target: TransferSyntaxUID) -> bool:
        return target in (EXPLICIT, IMPLICIT) or source in (EXPLICIT, IMPLICIT)

    @contextmanager
    def convert(
        self, path: str, offset: int, source: TransferSyntaxUID, target: TransferSyntaxUID
    ) -> Iterator[str]:
        output = self.folder / f"{Path(path).name}-{target}"
        with self._lock:
            self.asked.append((Path(path).name, target))
            self.running += 1
            self.most_running = max(self.running, self.most_running)
        try:
            assert self.may_end.wait(30)
            if self.fails(Path(path).name, target):
                raise TranscodingFailed
            output.write_bytes(Path(path).read_bytes() + target.encode())
        finally:
            with self._lock:
                self.running -= 1
        with self._lock:
            self.most = max(self.most, len(list(self.folder.iterdir())))
        try:
            yield str(output)
        finally:
            output.unlink()

    def ends_when_running(self, several: int) -> None:
        """Let the first conversions end when so many are under way: chance need not bring it about."""
        self.may_end.clear()

        def let_end() -> None:
            if until(lambda: self.running >= several):
                self.may_end.set()

        threading.Thread(target=let_end).start()

    def same_content(self, left: object, right: object) -> bool:
        return False


@dataclass
class Peers:
    """The way to the receiver: what came, in which order, and how it is answered."""

    takes: tuple[TransferSyntaxUID, ...] = (EXPLICIT,)
    admit: Callable[[], None] = lambda: None
    answer: Callable[[str], int] = lambda uid: 0
    came: list[tuple[str, TransferSyntaxUID, bytes]] = field(default_factory=list)
    opened: int = 0

    @contextmanager
    def open(self, peer: Peer, offers: object) -> Iterator["Delivery"]:
        self.admit()
        self.opened += 1
        yield Delivery(self)

    @property
    def rows(self) -> list[int]:
        return [int(uid.rpartition(".")[2]) for uid, _, _ in self.came]


class Delivery:
    """One association of the receiver."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self.last_status: int | None = None
        self.aborted = threading.Event()

    def accepted(self, sop_class_uid: SOPClassUID) -> tuple[TransferSyntaxUID, ...]:
        return self._peers.takes

    def send(
        self,
        payload: Payload,
        originator: Originator | None,
        following: Callable[[], Payload | None] | None = None,
    ) -> SendOutcome:
        self.last_status = None
        content = Path(payload.path).read_bytes()
        if following is not None:
            following()
        status = self._peers.answer(payload.sop_instance_uid)
        self._peers.came.append((payload.sop_instance_uid, payload.transfer_syntax_uid, content))
        self.last_status = status
        return SendOutcome.FAILURE if status else SendOutcome.SUCCESS

    def close(self) -> None:
        """Nothing is open."""

    def abort(self) -> None:
        self.aborted.set()


class Yard:
    """Everything a shipment needs, and its end: nothing is left behind."""

    def __init__(self, folder: Path, total: int, syntax: TransferSyntaxUID, **settings: int):
        self.store = Store(folder / "store", total, syntax)
        self.transcoder = Transcoder(folder / "work")
        self.peers = Peers()
        self.shipping = Shipping(
            index=self.store,  # type: ignore[arg-type]
            store=self.store,  # type: ignore[arg-type]
            sender=self.peers,
            transcoder=self.transcoder,
            settings=Retrieve(**{"convert_ahead": 4, **settings}),
            processor=None,  # type: ignore[arg-type]
        )

    def shipment(
        self,
        associations: int = 1,
        encoding: PeerEncoding = PeerEncoding.AS_STORED,
        prepare: Prepare | None = None,
    ) -> Shipment:
        peer = Peer(
            ae_title=AETitle("D"), host="", port=1, associations=associations, encoding=encoding
        )
        chosen = [(row, CT, self.store.syntax) for row in range(self.store.total)]
        preparation = None if prepare is None else Preparation(make=prepare)
        return self.shipping.shipment(peer, chosen, preparation=preparation)

    def clean(self) -> bool:
        return until(
            lambda: (
                self.shipping._ahead.used == (0, 0)
                and not list(self.transcoder.folder.iterdir())
                and not [one for one in threading.enumerate() if one.name == "move"]
            )
        )


def outcomes(shipment: Shipment, stopped: Callable[[], bool] = lambda: False) -> list[Shipped]:
    with closing(shipment.sent(stopped)) as some:
        return [one for one in some if one is not None]


def number(held_one: Held) -> int:
    return int(held_one.sop_instance_uid.rpartition(".")[2])


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Callable[..., Yard]]:
    made: list[Yard] = []

    def make(total: int = 40, syntax: TransferSyntaxUID = J70, **settings: int) -> Yard:
        made.append(Yard(tmp_path, total, syntax, **settings))
        return made[-1]

    yield make
    for one in made:
        one.transcoder.may_end.set()
        assert one.clean()
        one.shipping.close()


def test_an_answer_a_refusal_and_an_end_without_answer_are_told_apart(
    yard: Callable[..., Yard],
) -> None:
    here = yard(12, EXPLICIT)
    (here.store.folder / "3").unlink()
    here.store.syntax = EXPLICIT

    def answer(uid: str) -> int:
        if uid.endswith(".8"):
            raise PeerUnreachable("the association has ended")
        return 0xA700 if uid.endswith(".5") else 0

    here.peers.answer = answer
    shipment = here.shipment()
    found = {number(one.held): one for one in outcomes(shipment)}
    assert [number(one) for one in shipment.left()] == [9, 10, 11]
    assert sorted(found) == list(range(9))
    assert (found[1].fate, found[1].outcome, found[1].status) == (
        Fate.ANSWERED,
        SendOutcome.SUCCESS,
        0,
    )
    assert (found[5].fate, found[5].outcome, found[5].status) == (
        Fate.ANSWERED,
        SendOutcome.FAILURE,
        0xA700,
    )
    assert (found[3].fate, found[3].status) == (Fate.UNSENT, None)
    assert (found[8].fate, found[8].status) == (Fate.UNKNOWN, None)
    assert isinstance(found[8].failure, PeerUnreachable)


@pytest.mark.parametrize("associations", [1, 3])
def test_a_peer_that_is_never_reached_is_said_to_be(
    yard: Callable[..., Yard], associations: int
) -> None:
    here = yard(20)

    def never() -> None:
        raise PeerUnreachable("D at nowhere: no connection could be made")

    here.peers.admit = never
    shipment = here.shipment(associations)
    with pytest.raises(PeerUnreachable, match="no connection could be made"):
        outcomes(shipment)
    assert [number(one) for one in shipment.left()] == list(range(20))
    assert here.transcoder.asked == []


def test_who_stops_finds_the_rest_left_in_order(yard: Callable[..., Yard]) -> None:
    here = yard(40)
    shipment = here.shipment()
    done = outcomes(shipment, lambda: len(here.peers.came) >= 10)
    assert shipment.stopped
    assert [number(one.held) for one in done] == here.peers.rows == list(range(len(done)))
    assert [number(one) for one in shipment.left()] == list(range(len(done), 40))


@pytest.mark.parametrize("associations", [1, 2, 8])
def test_conversions_run_ahead_in_order_and_within_their_bounds(
    yard: Callable[..., Yard], associations: int
) -> None:
    here = yard(60)
    here.transcoder.ends_when_running(2)
    done = outcomes(here.shipment(associations))
    assert {(one.fate, one.status) for one in done} == {(Fate.ANSWERED, 0)}
    assert sorted(here.peers.rows) == list(range(60))
    if associations == 1:
        assert here.peers.rows == list(range(60))
    for uid, syntax, content in here.peers.came:
        row = int(uid.rpartition(".")[2])
        assert (syntax, content) == (EXPLICIT, bytes([row]) * SIZE_BYTES + EXPLICIT.encode())
    assert len(here.transcoder.asked) == 60
    assert here.transcoder.most <= 4 + associations


def test_several_are_being_converted_while_the_first_is_not_even_sent(
    yard: Callable[..., Yard],
) -> None:
    here = yard(20)
    here.transcoder.ends_when_running(5)
    assert len(outcomes(here.shipment())) == 20
    assert here.transcoder.most_running == 5, "the one whose turn it is, and four ahead"


@pytest.mark.parametrize("bound_bytes", [0, 5 * SIZE_BYTES, 9 * SIZE_BYTES])
def test_what_is_made_ahead_is_bounded_by_its_bytes(
    yard: Callable[..., Yard], bound_bytes: int
) -> None:
    """Stored compressed it is taken to be four times as large; the one that is sent is always made."""
    here = yard(30, convert_ahead_bytes=bound_bytes)
    assert len(outcomes(here.shipment())) == 30
    assert here.peers.rows == list(range(30))
    assert here.transcoder.most <= max(1, bound_bytes // (4 * SIZE_BYTES) + 1)


@pytest.mark.parametrize("associations", [1, 3])
def test_what_was_made_and_never_sent_is_removed(
    yard: Callable[..., Yard], associations: int
) -> None:
    here = yard(30)

    def lost(uid: str) -> int:
        raise PeerUnreachable("gone")

    here.peers.answer = lost
    shipment = here.shipment(associations)
    done = outcomes(shipment)
    assert [one.fate for one in done] == [Fate.UNKNOWN] * len(done)
    assert 1 <= len(done) <= associations
    left = {number(one) for one in shipment.left()}
    assert left == set(range(30)) - {number(one.held) for one in done}
    assert here.clean()


def test_who_stops_listening_leaves_nothing_behind(yard: Callable[..., Yard]) -> None:
    here = yard(30)
    with closing(here.shipment(2).sent()) as some:
        next(some)
    assert here.clean()


def test_one_that_cannot_be_converted_costs_itself_only(yard: Callable[..., Yard]) -> None:
    here = yard(10)
    here.transcoder.fails = lambda name, target: name == "4"
    found = {number(one.held): one for one in outcomes(here.shipment())}
    assert [row for row, one in found.items() if one.fate is Fate.UNSENT] == [4]
    assert isinstance(found[4].failure, TranscodingFailed)


def test_a_form_that_cannot_be_made_gives_way_to_the_next(yard: Callable[..., Yard]) -> None:
    here = yard(30, EXPLICIT)
    here.peers.takes = (EXPLICIT, J70, J80)
    here.transcoder.fails = lambda name, target: target == J80 or name == "7"
    done = outcomes(here.shipment(encoding=PeerEncoding.COMPRESSED))
    assert {one.fate for one in done} == {Fate.ANSWERED}
    assert [row for row, (_, syntax, _) in enumerate(here.peers.came) if syntax == EXPLICIT] == [7]
    in_vain = [name for name, target in here.transcoder.asked if target == J80]
    assert 3 <= len(in_vain) <= 3 + 4, "what never works is not asked for again and again"


def changed(suffix: bytes, folder: Path, inside: list[int]) -> Prepare:
    @contextmanager
    def prepare(held_one: Held, payload: Payload) -> Iterator[Payload]:
        if held_one.sop_instance_uid.endswith(".2"):
            raise CoercionFailed
        path = folder / f"changed-{number(held_one)}"
        path.write_bytes(Path(payload.path).read_bytes()[payload.offset :] + suffix)
        inside.append(len(list(folder.glob("changed-*"))))
        yield replace(payload, path=str(path), offset=0, size_bytes=None)
        path.unlink()

    return prepare


@pytest.mark.parametrize("syntax", [EXPLICIT, J70])
def test_what_is_sent_is_the_changed_copy(
    yard: Callable[..., Yard], tmp_path: Path, syntax: TransferSyntaxUID
) -> None:
    here, inside = yard(20, syntax), list[int]()
    converted = b"" if syntax == EXPLICIT else EXPLICIT.encode()
    found = {
        number(one.held): one
        for one in outcomes(here.shipment(prepare=changed(b"!", tmp_path, inside)))
    }
    assert found[2].fate is Fate.UNSENT
    assert isinstance(found[2].failure, CoercionFailed)
    assert here.peers.rows == [row for row in range(20) if row != 2]
    for uid, _, content in here.peers.came:
        row = int(uid.rpartition(".")[2])
        assert content == bytes([row]) * SIZE_BYTES + b"!" + converted
    assert 1 < max(inside) <= 5, "prepared ahead, within the bound"
    assert until(lambda: not list(tmp_path.glob("changed-*")))
