"""One run of a poll against a peer that fails, lies and limits, into a real archive."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from pacs.app import subscriber as attached
from pacs.app.archive import Archive
from pacs.app.listening import listening
from pacs.app.poll import Polling
from pacs.core.attributes import Level
from pacs.core.caller import Right, SubscriberName
from pacs.core.contract import Contract, ContractState
from pacs.core.errors import EntryConflicts, EntryNotFound, SettingsInvalid
from pacs.core.identifiers import AETitle
from pacs.core.polling import FetchBy, Poll
from pacs.core.work import Hold, JobState
from pacs.services.peer import Binding
from pacs.services.poll import PollWork
from tests.archive import free_port
from tests.keeping import ADMIN, keep, listed, opened
from tests.poll_peer import FakePeer
from tests.polling import Watched, add_poll, in_index, polled, study_of, uids

QUICK = {"poll__retry_s": "0.01"}


def bare(image: Dataset) -> Dataset:
    """The Data Set alone."""
    return Dataset(image)


@contextmanager
def polling(
    tmp_path: Path,
    peer: FakePeer,
    by: FetchBy = FetchBy.GET,
    poll: dict[str, Any] | None = None,
    **settings: str,
) -> Iterator[Archive]:
    """An archive with a poll of ``peer``, which listens for as long as the block lasts."""
    with (
        opened(tmp_path / "home", **settings) as archive,
        listening(archive) as our_port,
        peer.listening() as port,
    ):
        peer.our_port = our_port
        add_poll(archive, port, by, **(poll or {}))
        yield archive


@pytest.mark.parametrize("by", FetchBy)
def test_what_is_held_and_what_was_deleted_is_not_asked_for(by: FetchBy, tmp_path: Path) -> None:
    images = study_of(5)
    peer = FakePeer(images=list(images))
    with polling(tmp_path, peer, by) as archive:
        keep(archive, bare(images[0]))
        assert polled(archive)[0]["fetched"] == 4
        assert sorted(peer.sent) == uids(images[1:])
        study = str(images[0].StudyInstanceUID)
        archive.deletions.delete(ADMIN, Level.STUDY, study, reason="test")
        more = study_of(1)
        more[0].StudyInstanceUID = study
        peer.images.extend(more)
        result, said = polled(archive)
        assert (result["looked_at"], result["fetched"]) == (1, 1), said
        assert sorted(peer.sent) == uids([*images[1:], *more])


def test_what_is_gone_is_fetched_again_only_when_an_administrator_says_so(tmp_path: Path) -> None:
    images = study_of(3)
    peer = FakePeer(images=images)
    with polling(tmp_path, peer) as archive:
        polled(archive)
        with archive.database.transaction():  # as a reindex forgets files that are missing
            archive.database.write("DELETE FROM instance")
        assert polled(archive)[0]["fetched"] == 0
        archive.polls.retry(ADMIN, "PEER", gone=True)
        assert polled(archive)[0]["fetched"] == 3
        assert in_index(archive) == uids(images)


@pytest.mark.parametrize("counts", [True, False])
def test_a_study_that_has_not_changed_is_not_looked_at_where_the_peer_counts(
    counts: bool, tmp_path: Path
) -> None:
    peer = FakePeer(images=study_of(2), counts=counts)
    with polling(tmp_path, peer) as archive:
        assert polled(archive)[0]["looked_at"] == 1
        assert polled(archive)[0]["looked_at"] == (0 if counts else 1)
        assert len(peer.sent) == 2


def test_a_study_of_which_more_is_counted_than_listed_is_looked_at_again(tmp_path: Path) -> None:
    images = study_of(3)
    hidden = str(images[1].SOPInstanceUID)
    peer = FakePeer(images=images, unlisted={hidden}, never={hidden})
    with polling(tmp_path, peer) as archive:
        assert polled(archive)[0]["fetched"] == 2
        peer.unlisted.clear()
        peer.never.clear()
        assert polled(archive)[0]["fetched"] == 1, "its count is what it was"
        assert in_index(archive) == uids(images)


def test_without_room_nothing_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = FakePeer(images=study_of(2))
    with polling(tmp_path, peer) as archive:
        with monkeypatch.context() as patch:
            patch.setattr(archive.store, "free_bytes", lambda: 0)
            with pytest.raises(Hold):
                polled(archive)
        assert peer.asked == []
        assert polled(archive)[0]["fetched"] == 2


def test_what_does_not_come_is_tried_so_often_and_then_noted(tmp_path: Path) -> None:
    images = study_of(3)
    lost = str(images[1].SOPInstanceUID)
    peer = FakePeer(images=images, never={lost})
    with polling(tmp_path, peer, poll__max_attempts="3", **QUICK) as archive:
        results = [polled(archive)[0] for _ in range(6)]
        assert [one["fetched"] for one in results] == [2, 0, 0, 0, 0, 0]
        assert [one["failed"] for one in results] == [1, 1, 1, 0, 0, 0]
        assert len(peer.asked) == 3
        (failed,) = archive.polls.show(ADMIN, "PEER").failed
        assert (failed.sop_instance_uid, failed.attempts) == (lost, 3)
        assert failed.trouble.startswith("C-GET 0x0000")
        assert archive.polls.retry(ADMIN, "PEER") == 1
        peer.never.clear()
        assert polled(archive)[0]["fetched"] == 1
        assert archive.polls.show(ADMIN, "PEER").failed == []


def test_what_fails_is_put_off_and_the_rest_is_not(tmp_path: Path) -> None:
    images = study_of(2)
    peer = FakePeer(images=images, never={str(images[0].SOPInstanceUID)})
    with polling(tmp_path, peer) as archive:
        assert [polled(archive)[0]["failed"] for _ in range(4)] == [1, 1, 0, 0]
        peer.images += study_of(1)
        assert polled(archive)[0] == {
            "studies": 2, "looked_at": 1, "missing": 1, "fetched": 1, "failed": 0,
        }  # fmt: skip


def test_an_instance_that_breaks_the_association_is_found_and_keeps_nothing_from_coming(
    tmp_path: Path,
) -> None:
    images = study_of(12)
    other = study_of(2)
    bad = str(images[5].SOPInstanceUID)
    peer = FakePeer(images=[*images, *other], aborts_at={bad})
    with polling(tmp_path, peer, poll__max_attempts="2", **QUICK) as archive:
        for _ in range(12):
            polled(archive)
        wanted = uids([*(one for one in images if one.SOPInstanceUID != bad), *other])
        assert in_index(archive) == wanted
        assert sorted(set(peer.sent)) == wanted
        assert [one.sop_instance_uid for one in archive.polls.show(ADMIN, "PEER").failed] == [bad]
        asked = len(peer.asked)
        assert polled(archive)[0]["looked_at"] == 0
        assert len(peer.asked) == asked


def test_a_peer_that_is_away_is_left_alone_and_everything_comes_after_it_is_back(
    tmp_path: Path,
) -> None:
    peer, port = FakePeer(images=study_of(3)), free_port()
    with opened(tmp_path / "home") as archive:
        add_poll(archive, port, FetchBy.GET)
        with pytest.raises(Hold):
            polled(archive)
        ((_, last),) = archive.polls.list(ADMIN)
        assert last is not None and "no connection could be made" in last.trouble
        with peer.listening(port):
            assert polled(archive)[0]["fetched"] == 3
        ((_, last),) = archive.polls.list(ADMIN)
        assert last is not None and (last.trouble, last.result) == (
            "",
            {"studies": 1, "looked_at": 1, "missing": 3, "fetched": 3, "failed": 0},
        )


@pytest.mark.parametrize("status", [0xA701, 0xA702, 0xA801])
def test_a_peer_that_refuses_to_retrieve_is_left_alone_and_no_instance_is_to_blame(
    status: int, tmp_path: Path
) -> None:
    images = [one for _ in range(5) for one in study_of(1)]
    peer = FakePeer(images=images, retrieve_status=status)
    with polling(tmp_path, peer, FetchBy.MOVE, **QUICK) as archive:
        with pytest.raises(Hold, match=f"0x{status:04X}"):
            polled(archive)
        assert len(peer.asked) == 3
        assert archive.polls.show(ADMIN, "PEER").failed == []
        peer.retrieve_status = None
        assert polled(archive)[0]["fetched"] == 5


def test_a_peer_that_refuses_the_query_is_left_alone(tmp_path: Path) -> None:
    peer = FakePeer(images=study_of(1), find_status=0xA700)
    with polling(tmp_path, peer) as archive:
        with pytest.raises(Hold, match="0xA700"):
            polled(archive)
        assert len(peer.found) == 2  # the day, and its first hour


def test_a_run_stops_at_its_bound_and_the_next_goes_on(tmp_path: Path) -> None:
    images = [one for _ in range(3) for one in study_of(4, 3)]
    peer = FakePeer(images=images)
    with polling(tmp_path, peer, poll={"max_instances": 5}, poll__uids_per_request="2") as archive:
        fetched = [polled(archive)[0]["fetched"] for _ in range(6)]
        assert fetched == [5, 5, 5, 5, 1, 0]
        assert sorted(peer.sent) == uids(images) == in_index(archive)


def test_a_peer_that_stops_at_a_round_number_is_asked_hour_by_hour(tmp_path: Path) -> None:
    images = [
        one for number in range(130) for one in study_of(1, StudyTime=f"{number % 24:02}3000")
    ]
    peer = FakePeer(images=images, most_answers=100)
    with polling(tmp_path, peer) as archive:
        assert polled(archive)[0]["studies"] == 130
        assert in_index(archive) == uids(images)


def test_answers_that_make_no_sense_are_left_out_and_said(tmp_path: Path) -> None:
    odd = [Dataset() for _ in range(4)]
    odd[0].StudyInstanceUID = odd[0].SOPInstanceUID = "../../etc/passwd"
    odd[1].StudyInstanceUID, odd[1].StudyDate = "1.2.3.4", "19990101"
    odd[2].PatientName = "No^Uid"
    odd[3].SOPInstanceUID = odd[3].SeriesInstanceUID = odd[3].StudyInstanceUID = "1." * 40 + "1"
    peer = FakePeer(images=study_of(2), extra=odd)
    with polling(tmp_path, peer) as archive:
        result, said = polled(archive)
        assert (result["studies"], result["fetched"], result["failed"]) == (1, 2, 0)
        assert any("4 answers of PEER make no sense" in one for one in said)


def test_identifiers_name_everything_above_their_level(tmp_path: Path) -> None:
    """PS3.4 Section C.4.1.2.1: hierarchical search and retrieval."""
    images = study_of(2, 1)
    peer = FakePeer(images=images)
    filters = (("ModalitiesInStudy", "CT"),)
    with polling(tmp_path, peer, poll={"filters": filters, "window_days": 2}) as archive:
        keep(archive, bare(images[0]))
        polled(archive)
    days = [one for one in peer.found if one.QueryRetrieveLevel == "STUDY"]
    today = datetime.now(UTC).date()
    expected = [f"{today - timedelta(days=back):%Y%m%d}" for back in range(3)]
    assert [one.StudyDate for one in days] == expected
    assert {one.ModalitiesInStudy for one in days} == {"CT"}
    (series,) = [one for one in peer.found if one.QueryRetrieveLevel == "SERIES"]
    assert series.StudyInstanceUID == images[0].StudyInstanceUID
    instances = [one for one in peer.found if one.QueryRetrieveLevel == "IMAGE"]
    assert {one.SeriesInstanceUID for one in instances} == {one.SeriesInstanceUID for one in images}
    assert all(one.StudyInstanceUID and not one.SOPInstanceUID for one in instances)
    by_name, by_series = peer.asked
    assert by_name.SOPInstanceUID == images[1].SOPInstanceUID
    assert by_name.SeriesInstanceUID == images[1].SeriesInstanceUID
    assert (by_series.QueryRetrieveLevel, by_series.SeriesInstanceUID) == (
        "SERIES",
        images[2].SeriesInstanceUID,
    )
    assert by_series.StudyInstanceUID == by_name.StudyInstanceUID == images[0].StudyInstanceUID


def test_when_our_disk_is_full_no_instance_is_to_blame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = FakePeer(images=study_of(3))
    with polling(tmp_path, peer) as archive:
        limits = archive.store._limits
        from pacs.core.errors import CapacityExhausted

        def full(_: int) -> None:
            raise CapacityExhausted

        with monkeypatch.context() as patched:
            patched.setattr(limits, "refuse_when_full", full)
            with pytest.raises(Hold):
                polled(archive)
        assert archive.polls.show(ADMIN, "PEER").failed == []
        assert (in_index(archive), list((archive.home / "store").rglob("*.part"))) == ([], [])
        assert polled(archive)[0]["fetched"] == 3


def test_what_is_fetched_is_held_as_what_the_peer_would_send(tmp_path: Path) -> None:
    """Provenance, usage and audit: as a C-STORE from that peer."""
    peer = FakePeer(images=study_of(1))
    with polling(tmp_path, peer) as archive:
        polled(archive)
        ((registrant, source),) = archive.database.execute(
            "SELECT registrant, source_ae_title FROM instance"
        )
        assert (registrant, source) == ("local", "PEER")
        ((kind, subscriber),) = archive.database.execute("SELECT kind, subscriber FROM usage_fact")
        assert (kind, subscriber) == ("register", "local")
        (row,) = listed(archive, Level.STUDY, StudyInstanceUID=peer.images[0].StudyInstanceUID)
        assert row["PatientID"] == "POLLED"
        trail = "".join(one.read_text() for one in (archive.home / "audit").iterdir())
    assert '"C-STORE"' in trail and '"poll"' in trail
    assert "Polled^Patient" not in trail


def test_what_is_fetched_belongs_to_the_peers_subscriber_while_its_contract_holds(
    tmp_path: Path,
) -> None:
    peer = FakePeer(images=study_of(1))
    with polling(tmp_path, peer) as archive:
        contracts = attached.contracts(archive)
        name = SubscriberName("rad")
        contracts.add(
            ADMIN,
            Contract(
                subscriber=name, state=ContractState.ACTIVE, issuer_of_patient_id="Klinik Süd"
            ),
        )
        (entry,) = archive.peers.list(ADMIN)
        archive.peers.add(
            ADMIN, "PEER", entry.host, entry.port, binding=Binding(subscriber="rad")
        )  # fmt: skip
        result, said = polled(archive)
        assert result == {} and "does not let it register" in said[-1]
        contracts.grant(ADMIN, name, [Right.REGISTER])
        contracts.suspend(ADMIN, name, reason="unpaid")
        assert polled(archive)[0] == {}
        ((_, last),) = archive.polls.list(ADMIN)
        assert last is not None and "does not let it register" in last.trouble
        assert (peer.found, in_index(archive)) == ([], []), "nothing is even asked for"
        contracts.resume(ADMIN, name)
        assert polled(archive)[0]["fetched"] == 1
        ((registrant, issuer),) = archive.database.execute(
            "SELECT registrant, issuer_of_patient_id FROM patient"
        )
        assert (registrant, issuer) == ("rad", "Klinik Süd")
        ((subscriber,),) = archive.database.execute("SELECT subscriber FROM usage_fact")
        assert subscriber == "rad"
        assert polled(archive)[0]["fetched"] == 0


def test_told_to_stop_it_breaks_off_and_the_next_run_goes_on(tmp_path: Path) -> None:
    images = study_of(6)
    peer = FakePeer(images=images, pause_s=0.05)
    with polling(tmp_path, peer) as archive:
        polled(archive, stop=lambda: len(peer.sent) >= 3)
        some = len(in_index(archive))
        assert 2 <= some < 6
        peer.pause_s = 0
        assert polled(archive)[0]["fetched"] == 6 - some
        assert in_index(archive) == uids(images)
        assert peer.answers == [0x0000] * 6  # each was taken once


@pytest.mark.parametrize("by", FetchBy)
def test_a_retrieve_in_which_nothing_moves_is_broken_off(by: FetchBy, tmp_path: Path) -> None:
    peer = FakePeer(images=study_of(2), stalls=True)
    with polling(tmp_path, peer, by, poll__stall_s="0.3") as archive:
        result, said = polled(archive)
        assert (result["fetched"], result["failed"]) == (0, 0)
        assert any("its counters do not move" in one for one in said)


def test_a_peer_that_sends_more_than_there_is_is_broken_off(tmp_path: Path) -> None:
    images = study_of(3)
    peer = FakePeer(images=images, repeats=50)
    with polling(tmp_path, peer, poll__max_study_instances="5") as archive:
        polled(archive)
        assert len(peer.sent) < 12
        assert in_index(archive) == uids(images)


# --- what an administrator does ----------------------------------------------------------

POLL = Poll(
    name="day", ae_title=AETitle("PEER"), cron="*/5 * * * *", window_days=2, by=FetchBy.MOVE
)


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"ae_title": AETitle("NOBODY")}, EntryNotFound),
        ({"name": " "}, EntryConflicts),
        ({"name": "a\nb"}, EntryConflicts),
        ({"cron": "every day"}, SettingsInvalid),
        ({"cron": "99 * * * *"}, SettingsInvalid),
        ({"window_days": -1}, EntryConflicts),
        ({"max_instances": 0}, EntryConflicts),
        ({"filters": (("NoSuchKeyword", "1"),)}, EntryConflicts),
        ({"filters": (("StudyDate", "20260101"),)}, EntryConflicts),
        ({"filters": (("Modality", "CT"),)}, EntryConflicts),
        ({"filters": (("ReferencedStudySequence", "1"),)}, EntryConflicts),
        ({"filters": (("PatientID", ""),)}, EntryConflicts),
        ({"filters": (("PatientID", "1"), ("PatientID", "2"))}, EntryConflicts),
    ],
)
def test_what_cannot_be_a_poll_is_refused(
    wrong: dict[str, Any], kind: type[Exception], tmp_path: Path
) -> None:
    with opened(tmp_path / "home") as archive:
        archive.peers.add(ADMIN, "PEER", "127.0.0.1", 104)
        with pytest.raises(kind):
            archive.polls.add(ADMIN, replace(POLL, **wrong))
        assert list(archive.polls.list(ADMIN)) == []


def test_schedules_are_those_of_active_polls_of_known_peers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.database.snapshot._LOOK_AGAIN_S", 0.0)
    with opened(tmp_path / "home") as archive:
        polling_ = Polling(archive)
        assert polling_.schedules() == []
        archive.peers.add(ADMIN, "PEER", "127.0.0.1", 104)
        archive.polls.add(ADMIN, POLL)
        (schedule,) = polling_.schedules()
        assert (schedule.name, schedule.cron) == ("poll:day", "*/5 * * * *")
        assert (schedule.job.queue, schedule.job.alone) == ("poll:PEER", True)
        archive.polls.enable(ADMIN, "day", False)
        assert polling_.schedules() == []
        archive.polls.enable(ADMIN, "day", True)
        archive.peers.remove(ADMIN, "PEER")
        assert polling_.schedules() == []


def test_a_run_that_was_asked_for_waits_once(tmp_path: Path) -> None:
    with opened(tmp_path / "home") as archive:
        archive.peers.add(ADMIN, "PEER", "127.0.0.1", 104)
        archive.polls.add(ADMIN, POLL)
        for _ in range(2):
            archive.polls.run(ADMIN, "day", now=True)
        (job,) = archive.jobs.list(ADMIN, state=JobState.WAITING)
        assert (job.kind, job.queue) == ("poll.run", "poll:PEER")


def test_a_poll_that_was_disabled_or_removed_meanwhile_does_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "home") as archive:
        archive.peers.add(ADMIN, "PEER", "127.0.0.1", free_port())
        archive.polls.add(ADMIN, replace(POLL, active=False))
        run = Polling(archive).run
        assert run(Watched(PollWork(poll="day"))) is None
        assert run(Watched(PollWork(poll="gone"))) is None
        with pytest.raises(Hold):
            run(Watched(PollWork(poll="day", asked=True)))
