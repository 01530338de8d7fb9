"""Orthanc asks for Storage Commitment, hangs up, and is told the result on an association of ours. PS3.4 Annex J."""

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pacs.app.listening import listening
from tests.archive import free_port
from tests.association_fakes import until
from tests.keeping import ADMIN, opened
from tests.reporting import PATIENCE_S, QUICK, Reporter

CT = "1.2.840.10008.5.1.4.1.1.2"


def rest(port: int, path: str, asked: object = None) -> Any:
    body = None if asked is None else json.dumps(asked).encode()
    with urllib.request.urlopen(
        f"http://127.0.0.1:{port}{path}", data=body, timeout=PATIENCE_S
    ) as answer:
        return json.loads(answer.read())


@contextmanager
def orthanc(tool: str, folder: Path, archive_port: int) -> Iterator[tuple[int, int]]:
    """Run Orthanc; give its DICOM and its REST port, both on loopback."""
    folder.mkdir()
    port, rest_port = free_port(), free_port()
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [],
        "HttpServerEnabled": True,
        "HttpPort": rest_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "DicomModalities": {"pacs": ["PACS", "127.0.0.1", archive_port]},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [tool, str(folder / "orthanc.json"), "--verbose"], stdout=log, stderr=log
        )
        try:
            assert until(lambda: answers(rest_port), 2 * PATIENCE_S)
            yield port, rest_port
        finally:
            process.terminate()
            process.wait()


def answers(port: int) -> bool:
    try:
        return bool(rest(port, "/system"))
    except OSError:
        time.sleep(0.1)
        return False


def test_orthanc_shows_the_report(peer_tool: Callable[[str], str], tmp_path: Path) -> None:
    with (
        opened(tmp_path / "home", extensions=(Reporter().extension(),), **QUICK) as archive,
        listening(archive) as own_port,
        orthanc(peer_tool("Orthanc"), tmp_path / "orthanc", own_port) as (port, rest_port),
    ):
        archive.peers.add(ADMIN, "ORTHANC", "127.0.0.1", port)
        asked = rest(
            rest_port,
            "/modalities/pacs/storage-commitment",
            {"DicomInstances": [{"SOPClassUID": CT, "SOPInstanceUID": "1.2.3.4"}]},
        )
        report = f"/storage-commitment/{asked['ID']}"
        assert until(lambda: rest(rest_port, report)["Status"] != "Pending", PATIENCE_S), (
            [one.trouble for one in archive.outbox.list(ADMIN)],
            (tmp_path / "orthanc" / "log").read_text()[-2000:],
        )
        shown = rest(rest_port, report)
        assert (shown["Status"], shown["RemoteAET"]) == ("Success", "PACS")
        assert [one["SOPInstanceUID"] for one in shown["Success"]] == ["1.2.3.4"]
        assert until(lambda: list(archive.outbox.list(ADMIN)) == [], PATIENCE_S)
