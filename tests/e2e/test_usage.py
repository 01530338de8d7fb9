"""``pacs usage`` equals what foreign tools sent and fetched: instances, bytes and associations."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pynetdicom import AE, build_role, evt

from pacs.services.retrieve.account import WINDOW_S
from tests import processes, raw_peer
from tests.archive import Archive, Tool, data_set_of, run, serving, storescp
from tests.e2e.test_store import CT, image

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
STUDY, COUNT = 7_000, 6
PATIENCE_S = 60.0


def written(folder: Path) -> dict[str, bytes]:
    """Write a study to files; gives its Data Sets."""
    folder.mkdir()
    for number in range(COUNT):
        one: Dataset = image(STUDY + 1 + number, study=STUDY)
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = raw_peer.EXPLICIT_LITTLE
        one.save_as(folder / str(number), enforce_file_format=True)
    return {one.name: data_set_of(one) for one in folder.iterdir()}


def used(archive: Archive, kind: str, *options: str) -> list[dict[str, Any]]:
    """List the lines of a kind, without what is empty."""
    return [
        {key: value for key, value in one.items() if value is not None}
        for one in archive.listed("usage", *options)
        if one["kind"] == kind
    ]


def fetch(tool: Tool, archive: Archive, folder: Path, *how: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    name = "movescu" if how else "getscu"
    into = how or ("-B", "-od", str(folder))
    said = run(
        tool(name), "-aec", "PACS", "-S", *into, "-k", "QueryRetrieveLevel=STUDY",
        "-k", f"StudyInstanceUID={image(1, study=STUDY).StudyInstanceUID}",
        "127.0.0.1", str(archive.port),
    )  # fmt: skip
    assert said.code == 0, said.text
    return sorted(folder.iterdir())


def aborted(association: Any) -> None:
    association.abort()
    association.dimse_timeout = 0.1  # pynetdicom waits for an answer all the same


def lost_after(archive: Archive, count: int, lose: Callable[[Any], None] = aborted) -> int:
    """Begin a C-GET and ``lose`` it in the middle; gives how many instances were answered for."""
    taken: list[str] = []

    def take(event: Any) -> int:
        if len(taken) == count:
            lose(event.assoc)
            return 0xA700
        if lose is not aborted and len(taken) == count - 1:
            time.sleep(WINDOW_S + 0.1)  # what was taken by now is noted before the next one is sent
        taken.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    entity = AE("CUT")

    entity.add_requested_context(raw_peer.STUDY_ROOT + raw_peer.GET)
    entity.add_requested_context(CT, raw_peer.EXPLICIT_LITTLE)
    association = entity.associate(
        "127.0.0.1",
        archive.port,
        ext_neg=[build_role(CT, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, take)],
    )
    asked = Dataset()
    asked.QueryRetrieveLevel = "STUDY"
    asked.StudyInstanceUID = image(1, study=STUDY).StudyInstanceUID
    list(association.send_c_get(asked, raw_peer.STUDY_ROOT + raw_peer.GET))
    return len(taken)


def until_noted(archive: Archive, receiver: str) -> list[dict[str, Any]]:
    """Wait until the server has seen that the peer is gone."""
    limit_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < limit_s:
        found = [one for one in used(archive, "deliver") if one["receiver"] == receiver]
        if found:
            return found
    raise AssertionError("nothing was noted")


def test_usage_is_what_was_sent_and_what_travelled(
    new_database: Callable[[], str], peer_tool: Tool, tmp_path: Path
) -> None:
    sent = written(tmp_path / "sent")
    total = sum(map(len, sent.values()))
    with serving(tmp_path / "home", new_database()) as archive:
        for _ in range(2):  # the second time it is held already, and answered 0000
            said = run(
                peer_tool("storescu"), "+sd", "127.0.0.1", str(archive.port), str(tmp_path / "sent")
            )
            assert said.code == 0, said.text
        (registered,) = used(archive, "register")
        month = registered.pop("month")
        assert registered == {
            "subscriber": "local", "kind": "register", "modality": "CT",
            "instances": COUNT, "bytes": total, "studies": 1,
        }  # fmt: skip
        (held,) = used(archive, "hold", "--month", month, "--subscriber", "local")
        assert (held["instances"], held["bytes"]) == (COUNT, total)
        got = fetch(peer_tool, archive, tmp_path / "got")
        assert sum(len(data_set_of(one)) for one in got) == total
        with storescp(peer_tool, tmp_path / "taken", "+xi") as receiver:  # Implicit VR: other bytes
            archive.add_peer("DEST", receiver.port)
            fetch(peer_tool, archive, tmp_path / "none", "-aem", "DEST")
            moved = [len(data_set_of(one)) for one in receiver.taken()]
        assert len(moved) == COUNT and sum(moved) != total
        delivered = {one["receiver"]: one for one in used(archive, "deliver")}
        assert {key: (one["instances"], one["bytes"], one["studies"]) for key, one in delivered.items()} == {
            "GETSCU": (COUNT, total, 1),
            "DEST": (COUNT, sum(moved), 1),
        }  # fmt: skip
        assert lost_after(archive, 3) == 3
        (cut,) = until_noted(archive, "CUT")
        assert (cut["instances"], cut["studies"]) == (3, 1), "what it took before it was gone"
        assert used(archive, "register", "--subscriber", "nobody") == []
        assert used(archive, "register", "--month", "2001-01") == []
    (connected,) = used(archive, "connect")
    assert connected["associations"] == 5, "a drained server has noted them all"
    assert json.loads(archive.pacs("usage", "--check", "--json")) == []
    assert "local\tregister\tCT" in archive.pacs("usage")


def test_what_was_taken_is_usage_though_the_listener_is_killed(
    peer_tool: Tool, tmp_path: Path
) -> None:
    sizes = [len(one) for one in written(tmp_path / "sent").values()]
    with serving(tmp_path / "home") as archive:
        said = run(
            peer_tool("storescu"), "+sd", "127.0.0.1", str(archive.port), str(tmp_path / "sent")
        )
        assert said.code == 0, said.text

        def killed(association: Any) -> None:
            for listener in processes.listeners(archive.process.pid):
                os.kill(listener, signal.SIGKILL)
            association.dul.socket.close()

        assert lost_after(archive, 3, killed) == 3
        (cut,) = used(archive, "deliver")
        assert (cut["receiver"], cut["instances"], cut["studies"]) == ("CUT", 3, 1)
        assert 3 * min(sizes) <= cut["bytes"] <= 3 * max(sizes)
