"""Images that a workitem says are elsewhere are fetched first, for whoever made it and from whom it may ask."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pacs.app import subscriber
from pacs.core.caller import Caller, Right, SubscriberName
from pacs.core.identifiers import AETitle
from pacs.core.processing import ProcessingOrder
from pacs.core.records import Peer
from pacs.core.workitems import WorkitemState, WorkitemUID
from pacs.services.process import Input, Reference, workitem_of
from storage.database.peer import PeerTable
from tests.archive import free_port
from tests.forwarding import known
from tests.integration.test_process_workitems import LOCAL, Home, home_of, pixels, reason
from tests.integration.test_subscriber import contract
from tests.keeping import ADMIN, caller_of
from tests.phantoms import ct_series, hounsfield
from tests.poll_peer import FakePeer

AWAY = ct_series(count=5, rows=16, columns=24)


@pytest.fixture
def peer() -> FakePeer:
    return FakePeer(images=[*AWAY])


def asked(home: Home, *ae_titles: str, named: bool = False, caller: Caller = LOCAL) -> WorkitemUID:
    """Ask for the maximum of what is away."""
    references = [
        Reference(sop_class_uid=one.SOPClassUID, sop_instance_uid=one.SOPInstanceUID)
        for one in AWAY
    ]
    one = Input(
        study_instance_uid=AWAY[0].StudyInstanceUID,
        series_instance_uid=AWAY[0].SeriesInstanceUID,
        references=references if named else (),
        retrieve_ae_titles=tuple(AETitle(each) for each in ae_titles),
    )
    return home.worklist.create(
        caller, workitem_of(ProcessingOrder(operation="mip"), [one], label="away")
    )


@pytest.mark.parametrize("named", [False, True])
def test_what_is_elsewhere_is_fetched(tmp_path: Path, peer: FakePeer, named: bool) -> None:
    with home_of(tmp_path, count=1) as home, peer.listening() as port:
        known(home.archive, "MODALITY", port)
        uid = asked(home, "NOBODY", "MODALITY", named=named)
        home.work()
        item = home.worklist.read(uid)
        assert item.state is WorkitemState.COMPLETED, item.progress
        (series,) = item.results()
        expected = np.max([hounsfield(one) for one in AWAY], axis=0)
        assert np.array_equal(pixels(home, series), expected)
        sent = len(peer.sent)
        assert sent == len(AWAY)
        home.worklist.read(asked(home, "MODALITY", named=named))
        home.work()
        assert len(peer.sent) == sent, "what is held is not fetched again"


def test_what_does_not_come_is_said(tmp_path: Path, peer: FakePeer) -> None:
    peer.never = {AWAY[2].SOPInstanceUID}
    with home_of(tmp_path, count=1) as home, peer.listening() as port:
        known(home.archive, "MODALITY", port)
        uid = asked(home, "MODALITY", named=True)
        home.work()
        assert reason(home.worklist.read(uid)) == "1 of 5 images are not held"


def test_a_place_that_is_away_is_asked_again_and_given_up(tmp_path: Path) -> None:
    with home_of(tmp_path, count=1) as home:
        known(home.archive, "MODALITY", free_port())
        uid = asked(home, "MODALITY")
        from pacs.services.process import perform

        tries: list[Any] = []
        for _ in range(perform._FETCHES):
            home.work()
            tries.append(home.jobs("process.workitem"))
            _hastened(home)
        assert tries[:-1] == [["delayed"]] * (perform._FETCHES - 1)
        assert reason(home.worklist.read(uid)) == "images cannot be fetched: nobody answers"


def test_nobodys_peer_is_asked_only_for_whom_an_admin_lets_it(
    tmp_path: Path, peer: FakePeer
) -> None:
    """It trusts this archive: whoever could name it would read all that it shows to the archive."""
    with home_of(tmp_path, count=1) as home, peer.listening() as port:
        known(home.archive, "OUTSIDE", port)
        rights = frozenset({Right.PROCESS, Right.REGISTER})
        subscriber.contracts(home.archive).add(ADMIN, contract("asker", rights=rights))
        uid = asked(home, "OUTSIDE", caller=caller_of("asker"))
        home.work()
        assert reason(home.worklist.read(uid)) == "no images are held under what is named"
        assert (peer.sent, peer.asked) == ([], [])
        subscriber.terms(home.archive).add_destination(ADMIN, "asker", "OUTSIDE")
        uid = asked(home, "OUTSIDE", caller=caller_of("asker"))
        home.work()
        assert home.worklist.read(uid).state is WorkitemState.COMPLETED
        assert len(peer.sent) == len(AWAY)


def test_the_device_of_another_is_asked_for_nobody_else(tmp_path: Path, peer: FakePeer) -> None:
    with home_of(tmp_path, count=1) as home, peer.listening() as port:
        rights = frozenset({Right.PROCESS, Right.REGISTER})
        for name in ("asker", "owner"):
            subscriber.contracts(home.archive).add(ADMIN, contract(name, rights=rights))
        PeerTable(home.archive.database).put(
            Peer(
                ae_title=AETitle("OWNERS"),
                host="127.0.0.1",
                port=port,
                subscriber=SubscriberName("owner"),
            )
        )
        subscriber.terms(home.archive).add_destination(ADMIN, "asker", "OWNERS")
        for name, ended in (("asker", WorkitemState.CANCELED), ("owner", WorkitemState.COMPLETED)):
            uid = asked(home, "OWNERS", caller=caller_of(name))
            home.work()
            assert home.worklist.read(uid).state is ended, name
            assert bool(peer.sent) is (name == "owner")


def _hastened(home: Home) -> None:
    with home.archive.database.transaction():
        home.archive.database.write(
            "UPDATE job SET not_before_utc = '2020-01-01T00:00:00.000Z' WHERE state = 'delayed'"
        )
