"""Polls against foreign archives, while new studies arrive there. PS3.4 Sections C.4.1 to C.4.3."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from pydicom.uid import RLELossless

from pacs.app.listening import listening
from pacs.core.polling import FetchBy
from tests.archive import Tool
from tests.keeping import ADMIN, opened
from tests.polling import (
    Running,
    add_poll,
    conflicts,
    dcmqrscp,
    in_index,
    orthanc,
    polled,
    send,
    study_of,
    uids,
)

Peers = Callable[..., AbstractContextManager[Running]]


@pytest.mark.parametrize("by", FetchBy)
@pytest.mark.parametrize("peer_of", [dcmqrscp, orthanc])
def test_what_arrives_at_a_peer_is_fetched_once(
    peer_of: Peers, by: FetchBy, peer_tool: Tool, tmp_path: Path
) -> None:
    """Whole studies, then one series and single instances more, then nothing; each object once."""
    with (
        opened(tmp_path / "home") as archive,
        listening(archive) as our_port,
        peer_of(peer_tool, tmp_path / "peer", our_port) as peer,
    ):
        add_poll(archive, peer.port, by)
        first, second = study_of(3, 2), study_of(1)
        send(peer_tool, peer.port, [*first, *second], tmp_path / "one")
        result, said = polled(archive)
        assert result == {"studies": 2, "looked_at": 2, "missing": 6, "fetched": 6, "failed": 0}, (
            said
        )
        assert in_index(archive) == uids([*first, *second])

        more = study_of(2)
        late = study_of(1, 1)
        for one in late:
            one.StudyInstanceUID = first[0].StudyInstanceUID
        late[0].SeriesInstanceUID = first[0].SeriesInstanceUID
        send(peer_tool, peer.port, [*more, *late], tmp_path / "two")
        result, said = polled(archive)
        assert (result["missing"], result["fetched"], result["failed"]) == (4, 4, 0), said
        everything = uids([*first, *second, *more, *late])
        assert in_index(archive) == everything

        result, said = polled(archive)
        assert (result["studies"], result["missing"], result["fetched"]) == (3, 0, 0), said
        assert in_index(archive) == everything
        assert conflicts(archive) == 0


@pytest.mark.parametrize("by", FetchBy)
def test_what_is_compressed_comes_as_it_lies_there(
    by: FetchBy, peer_tool: Tool, tmp_path: Path
) -> None:
    with (
        opened(tmp_path / "home") as archive,
        listening(archive) as our_port,
        orthanc(peer_tool, tmp_path / "peer", our_port) as peer,
    ):
        images = study_of(2, 1)
        for one in images:
            one.compress(RLELossless, generate_instance_uid=False)
        add_poll(archive, peer.port, by)
        send(peer_tool, peer.port, images, tmp_path / "one", "-xr")
        result, said = polled(archive)
        assert (result["fetched"], result["failed"]) == (3, 0), said
        syntaxes = archive.database.execute("SELECT transfer_syntax_uid FROM instance")
        assert {row[0] for row in syntaxes} == {RLELossless}


def test_instances_a_peer_cannot_send_are_noted(peer_tool: Tool, tmp_path: Path) -> None:
    """DCMTK's archive sends by C-GET in the first syntax accepted, and converts nothing."""
    with (
        opened(tmp_path / "home", poll__max_attempts="1") as archive,
        listening(archive) as our_port,
        dcmqrscp(peer_tool, tmp_path / "peer", our_port, options=("+xr",)) as peer,
    ):
        good, bad = study_of(1), study_of(2)
        for one in bad:
            one.compress(RLELossless, generate_instance_uid=False)
        add_poll(archive, peer.port, FetchBy.GET)
        send(peer_tool, peer.port, [*good, *bad], tmp_path / "one", "-xr")
        assert polled(archive)[0] == {
            "studies": 2, "looked_at": 2, "missing": 3, "fetched": 1, "failed": 2,
        }  # fmt: skip
        failed = archive.polls.show(ADMIN, "PEER").failed
        assert sorted(one.sop_instance_uid for one in failed) == uids(bad)
        assert polled(archive)[0]["missing"] == 0
        assert in_index(archive) == uids(good)
