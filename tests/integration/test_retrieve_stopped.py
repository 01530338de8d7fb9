"""What may be delivered changes while it is being delivered: nothing further leaves, and the answer says why."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from pacs.app import subscriber as attached
from pacs.app.archive import Archive
from pacs.app.listening import listening
from pacs.core.attributes import Level
from pacs.core.caller import Right, SubscriberName
from pacs.core.contract import Agreement, Contract, ContractState, Purpose
from pacs.core.identifiers import AETitle
from pacs.services.peer import Binding
from pacs.services.retrieve import leave
from pacs.services.subscriber import Contracts, Terms
from pacs.services.subscriber.terms import PurposeEdits
from tests import raw_peer
from tests.keeping import ADMIN, data_set, keep, opened
from tests.raw_peer import EXPLICIT_LITTLE, MOVE, STUDY_ROOT, Response, Taken, identifier

CT = "1.2.840.10008.5.1.4.1.1.2"
STUDY, SIDE_PX, COUNT, AT = "1.7", 16, 20, 5
UIDS = [f"1.7.1.{number}" for number in range(1, COUNT + 1)]
NOT_AUTHORIZED, DESTINATION_UNKNOWN, SUCCESS = 0x0124, 0xA801, 0x0000
OF_ALPHA = Agreement(owner=SubscriberName("alpha"))
OF_DELTA = Agreement(owner=SubscriberName("delta"))
READING = Purpose(name="reading", max_matrix=64)


@dataclass(frozen=True, kw_only=True)
class Place:
    """An archive where ``beta`` sees what ``alpha`` registered, and may have it moved to a device of ``gamma``."""

    archive: Archive
    port: int
    destination_port: int
    taken: "Changing"
    contracts: Contracts
    terms: Terms

    def bound(self, **bounds: Any) -> None:
        """Change what the purpose of every request of ``beta`` bounds; what is not said, it does not."""
        edits = PurposeEdits(**{"modalities": None, "max_matrix": None, **bounds})
        self.terms.add_purpose(ADMIN, "beta", "reading", edits, default=True)

    def got(self, change: Callable[["Place"], object]) -> tuple[Response, int]:
        """C-GET as beta; while the fifth instance is taken it changes. Gives the last response, and what came."""
        taken = Changing(lambda: change(self))
        asked = identifier("STUDY", StudyInstanceUID=STUDY)
        responses, arrived = raw_peer.get(
            self.port, STUDY_ROOT, asked, [(CT, EXPLICIT_LITTLE)], taken, ae_title="READER"
        )
        return responses[-1], len(arrived)

    def moved(self, change: Callable[["Place"], object]) -> tuple[Response, int]:
        """As ``got``, by C-MOVE."""
        self.taken.instances.clear()
        self.taken.change = lambda: change(self)
        asked = identifier("STUDY", StudyInstanceUID=STUDY)
        with raw_peer.associated(
            self.port, [(STUDY_ROOT + MOVE, [EXPLICIT_LITTLE])], ae_title="READER"
        ) as association:
            responses = raw_peer.move(association, STUDY_ROOT, asked, "DEST")
        return responses[-1], len(self.taken.instances)

    def events(self, event: str) -> list[str]:
        return [
            line
            for file in sorted((self.archive.home / "audit").glob("*.jsonl"))
            for line in file.read_text().splitlines()
            if f'"{event}"' in line
        ]


@dataclass
class Changing(Taken):
    """A receiver that has something changed before it answers for the fifth instance."""

    change: Callable[[], object] = field(default=lambda: None)

    def __init__(self, change: Callable[[], object]) -> None:
        super().__init__()
        self.change = change

    def __call__(self, event: Any) -> int:
        status = super().__call__(event)
        if len(self.instances) == AT:
            self.change()
        return status


def contract(name: str, **more: Any) -> Contract:
    return Contract(
        subscriber=SubscriberName(name),
        state=ContractState.ACTIVE,
        issuer_of_patient_id=name,
        **more,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    taken = Changing(lambda: None)
    with ExitStack() as stack:
        archive = stack.enter_context(opened(tmp_path_factory.mktemp("stopped")))
        for number, uid in enumerate(UIDS, 1):
            made = data_set(STUDY, "1.7.1", uid, InstanceNumber=str(number))
            made.Rows = made.Columns = SIDE_PX
            keep(archive, made, registrant="alpha")
        there = stack.enter_context(raw_peer.receiving([(CT, [EXPLICIT_LITTLE])], taken))
        contracts, terms = attached.contracts(archive), attached.terms(archive)
        for name in ("alpha", "gamma", "delta"):
            contracts.add(ADMIN, contract(name))
        contracts.add(
            ADMIN,
            contract(
                "beta",
                rights=frozenset({Right.RECEIVE}),
                agreements=(OF_ALPHA,),
                purposes=(READING,),
                purpose=READING.name,
                destinations=frozenset({AETitle("DEST")}),
            ),
        )
        archive.peers.add(ADMIN, "READER", "127.0.0.1", 1, binding=Binding(subscriber="beta"))
        archive.peers.add(ADMIN, "DEST", "127.0.0.1", there, binding=Binding(subscriber="gamma"))
        port = stack.enter_context(listening(archive))
        yield Place(
            archive=archive,
            port=port,
            destination_port=there,
            taken=taken,
            contracts=contracts,
            terms=terms,
        )


@pytest.fixture(autouse=True)
def judged_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sub-operation is judged anew, instead of twice a second."""
    monkeypatch.setattr(leave, "LOOK_S", 0.0)


def revoke(place: Place) -> None:
    place.contracts.revoke(ADMIN, "beta", [Right.RECEIVE])


def grant(place: Place) -> None:
    place.contracts.grant(ADMIN, "beta", [Right.RECEIVE])


def disagree(place: Place) -> None:
    place.terms.disagree(ADMIN, "beta", OF_ALPHA)


def agree(place: Place) -> None:
    place.terms.agree(ADMIN, "beta", OF_ALPHA)


def shrink(place: Place) -> None:
    place.bound(max_matrix=SIDE_PX - 1)


def hide_kind(place: Place) -> None:
    place.bound(max_matrix=64, modalities=frozenset({"MR"}))


def restore(place: Place) -> None:
    place.bound(max_matrix=64)


def other_default(place: Place) -> None:
    """No request states a purpose: from now on they all have another."""
    edits = PurposeEdits(max_matrix=SIDE_PX - 1)
    place.terms.add_purpose(ADMIN, "beta", "looking", edits, default=True)


def first_default(place: Place) -> None:
    restore(place)
    place.terms.remove_purpose(ADMIN, "beta", "looking")


STOPS = [
    (revoke, grant),
    (disagree, agree),
    (shrink, restore),
    (hide_kind, restore),
    (other_default, first_default),
]


@pytest.mark.parametrize(("change", "undo"), STOPS)
def test_a_get_ends_when_not_all_of_it_may_be_had_any_more(
    place: Place, change: Callable[[Place], None], undo: Callable[[Place], None]
) -> None:
    before = len(place.events("delivery-stopped"))
    try:
        (last, failed), came = place.got(change)
    finally:
        undo(place)
    assert came == AT, "nothing is begun after the change"
    assert last.Status == NOT_AUTHORIZED
    assert last.ErrorComment == "Not authorized"
    assert (last.NumberOfCompletedSuboperations, last.NumberOfFailedSuboperations) == (
        AT,
        COUNT - AT,
    )
    assert "NumberOfRemainingSuboperations" not in last
    assert not failed, "what may not be seen any more is not named"
    assert len(place.events("delivery-stopped")) == before + 1
    (last, _), came = place.got(lambda _: None)
    assert (last.Status, came) == (SUCCESS, COUNT), "asked again with its rights, it gets all"


@pytest.mark.parametrize(("change", "undo"), STOPS)
def test_a_move_ends_likewise(
    place: Place, change: Callable[[Place], None], undo: Callable[[Place], None]
) -> None:
    try:
        (last, failed), came = place.moved(change)
    finally:
        undo(place)
    assert AT <= came < COUNT - 5, "what was under way, and nothing further"
    assert (last.Status, last.ErrorComment) == (NOT_AUTHORIZED, "Not authorized")
    assert last.NumberOfCompletedSuboperations == came
    assert last.NumberOfFailedSuboperations == COUNT - came
    assert not failed


def suspend_receiver(place: Place) -> None:
    place.contracts.suspend(ADMIN, "gamma", reason="unpaid")


def resume_receiver(place: Place) -> None:
    place.contracts.resume(ADMIN, "gamma")


def close_way(place: Place) -> None:
    place.terms.remove_destination(ADMIN, "beta", "DEST")


def open_way(place: Place) -> None:
    place.terms.add_destination(ADMIN, "beta", "DEST")


def remove_peer(place: Place) -> None:
    place.archive.peers.remove(ADMIN, AETitle("DEST"))


def add_peer(place: Place) -> None:
    binding = Binding(subscriber="gamma")
    place.archive.peers.add(ADMIN, "DEST", "127.0.0.1", place.destination_port, binding=binding)


@pytest.mark.parametrize(
    ("change", "undo"),
    [(suspend_receiver, resume_receiver), (close_way, open_way), (remove_peer, add_peer)],
)
def test_a_move_ends_when_its_destination_may_not_receive_any_more(
    place: Place, change: Callable[[Place], None], undo: Callable[[Place], None]
) -> None:
    try:
        (last, failed), came = place.moved(change)
    finally:
        undo(place)
    assert AT <= came < COUNT - 5
    assert last.Status == DESTINATION_UNKNOWN, "as the same request is answered now"
    assert (last.NumberOfCompletedSuboperations, last.NumberOfFailedSuboperations) == (
        came,
        COUNT - came,
    )
    taken = {one.sop_instance_uid for one in place.taken.instances}
    assert failed is not None and set(failed.FailedSOPInstanceUIDList) == set(UIDS) - taken


def widen(place: Place) -> None:
    place.bound()


def still_within(place: Place) -> None:
    place.bound(max_matrix=SIDE_PX, modalities=frozenset({"CT"}))


def other_agreement(place: Place) -> None:
    place.terms.agree(ADMIN, "beta", OF_DELTA)


def drop_other_agreement(place: Place) -> None:
    place.terms.disagree(ADMIN, "beta", OF_DELTA)


def rename_purpose(place: Place) -> None:
    place.terms.add_purpose(ADMIN, "beta", "looking", PurposeEdits(max_matrix=64), default=True)
    place.terms.remove_purpose(ADMIN, "beta", "reading")


def other_contract(place: Place) -> None:
    place.contracts.suspend(ADMIN, "delta", reason="unpaid")


def resume_other(place: Place) -> None:
    place.contracts.resume(ADMIN, "delta")


@pytest.mark.parametrize(
    ("change", "undo"),
    [
        (widen, restore),
        (still_within, restore),
        (other_agreement, drop_other_agreement),
        (other_contract, resume_other),
        (rename_purpose, first_default),
    ],
)
def test_a_change_that_takes_nothing_of_it_stops_nothing(
    place: Place, change: Callable[[Place], None], undo: Callable[[Place], None]
) -> None:
    try:
        (got, _), came = place.got(change)
    finally:
        undo(place)
    assert (got.Status, came) == (SUCCESS, COUNT)


def test_what_is_deleted_meanwhile_is_no_reason_to_stop(place: Place) -> None:
    extra = data_set(STUDY, "1.7.2", "1.7.2.1", Rows=SIDE_PX, Columns=SIDE_PX)
    keep(place.archive, extra, registrant="alpha")

    def change(place: Place) -> None:
        place.archive.deletions.delete(ADMIN, Level.SERIES, "1.7.2", reason="twice")
        still_within(place)

    try:
        (last, _), came = place.got(change)
    finally:
        restore(place)
    assert last.Status == SUCCESS
    assert COUNT <= came == last.NumberOfCompletedSuboperations
