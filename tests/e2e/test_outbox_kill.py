"""An event survives SIGKILL between its claim and the peer's answer: it is sent again, by the command's own server."""

import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.archive import Archive, serving
from tests.association_fakes import until
from tests.reporting import COMMITMENT, COMMITMENT_INSTANCE, PATIENCE_S, Told, calling

_MODULE = """
from tests.reporting import Reporter

EXTENSION = Reporter().extension()
"""
SETTINGS = {"outbox.poll_s": "0.1", "outbox.lease_s": "1", "outbox.grace_s": "60"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a home whose server finds an extension with events."""
    site = tmp_path / "site"
    information = site / "reporting_extension-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: reporting-extension\nVersion: 1.0\n"
    )
    (information / "entry_points.txt").write_text(
        "[pacs.extensions]\nreporter = reporting_extension:EXTENSION\n"
    )
    (site / "reporting_extension.py").write_text(_MODULE)
    repository = str(Path(__file__).resolve().parents[2])
    monkeypatch.setattr("tests.archive.environment", _with_path(f"{repository}{os.pathsep}{site}"))
    return tmp_path / "home"


def _with_path(path: str) -> Any:
    from tests.archive import environment

    return lambda *given: {**environment(*given), "PYTHONPATH": path}


def dead(archive: Archive) -> list[bool]:
    """Look at the rows themselves while waiting; a command each time would take long."""
    with closing(sqlite3.connect(archive.home / "index.sqlite")) as database:
        return [bool(row[0]) for row in database.execute("SELECT dead FROM outbox ORDER BY id")]


def act(archive: Archive, told: Any, enough: Callable[[], bool]) -> None:
    """Ask for something the archive will report, and stay until it is enough."""
    from pydicom.dataset import Dataset

    with calling(archive.port, told) as association:
        asked = Dataset()
        asked.TransactionUID = "1.2.9"
        status, _ = association.send_n_action(asked, 1, COMMITMENT, COMMITMENT_INSTANCE)
        assert status.Status == 0x0000
        assert until(enough, PATIENCE_S)


def test_a_kill_before_the_answer_sends_the_event_again(home: Path) -> None:
    killed, let_go = threading.Event(), threading.Event()

    def kills(event: Any) -> tuple[int, None]:
        os.kill(archive.process.pid, signal.SIGKILL)
        archive.process.wait()
        killed.set()
        let_go.wait(PATIENCE_S)
        return 0x0000, None

    with (
        pytest.raises(AssertionError, match="serve ended with -9"),
        serving(home, settings=SETTINGS) as archive,
    ):
        try:
            act(archive, kills, killed.is_set)
        finally:
            let_go.set()
    told = Told()
    with serving(home, settings=SETTINGS) as archive:
        (event,) = archive.listed("outbox", "list")
        assert (event["ae_title"], event["attempts"]) == ("MODALITY", 1)
        assert event["state"] in ("sending", "waiting")
        with calling(archive.port, told):
            assert until(lambda: told.numbers == [9], PATIENCE_S)
            assert until(lambda: dead(archive) == [], PATIENCE_S)


def test_what_an_admin_sees_and_does(home: Path) -> None:
    refuses, told = Told(0x0110, 0x0110), Told()
    settings = {**SETTINGS, "outbox.max_attempts": "1"}
    with serving(home, settings=settings) as archive:
        act(archive, refuses, lambda: dead(archive) == [True])
        (event,) = archive.listed("outbox", "list")
        assert (event["state"], event["trouble"]) == ("dead", "status 0110")
        assert (event["sop_class_uid"], event["event_type_id"]) == (COMMITMENT, 1)
        with calling(archive.port, told):
            assert "sent again" in archive.pacs("outbox", "retry", str(event["id"]))
            assert until(lambda: told.numbers == [9], PATIENCE_S)
        assert until(lambda: dead(archive) == [], PATIENCE_S)
        act(archive, refuses, lambda: dead(archive) == [True])
        archive.pacs("outbox", "cancel", str(event["id"] + 1))
        assert dead(archive) == []
