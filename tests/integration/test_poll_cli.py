"""``pacs poll`` as an administrator types it."""

import json
from pathlib import Path

import pytest

from pacs.app.poll import Polling
from pacs.cli import exits
from pacs.cli.main import run
from pacs.core.identifiers import AETitle, SOPInstanceUID, StudyInstanceUID
from pacs.core.poll_ports import InstanceMemory
from pacs.core.work import Permanent
from pacs.services.poll import PollWork
from storage.database.poll_memory import PollMemory
from tests.keeping import ADMIN, opened
from tests.polling import Watched


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with opened(tmp_path / "home") as archive:
        archive.peers.add(ADMIN, "CT 1", "127.0.0.1", 104)
    return tmp_path / "home"


def said(capsys: pytest.CaptureFixture[str], home: Path, *arguments: str) -> tuple[int, str, str]:
    code = run(["--home", str(home), "poll", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_poll_is_added_listed_shown_changed_and_removed(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, home, "add", "CT 1")[:2] == (0, "CT 1 polls CT 1 at */5 * * * *\n")
    options = ("--match", "ModalitiesInStudy=CT", "--match", "PatientID=A*", "--by", "get")
    added = said(capsys, home, "add", "CT 1", "night", "--cron", "", "--window-days", "9", *options)
    assert added[:2] == (0, "night polls CT 1 when asked to\n")
    first, second = json.loads(said(capsys, home, "list", "--json")[1])
    assert (first["name"], first["by"], first["active"]) == ("CT 1", "move", True)
    assert second["match"] == ["ModalitiesInStudy=CT", "PatientID=A*"]
    assert (second["window_days"], second["last_run_utc"]) == (9, None)
    assert said(capsys, home, "disable", "night")[0] == 0
    (shown,) = json.loads(said(capsys, home, "show", "night", "--json")[1])
    assert (shown["active"], shown["failed"]) == (False, [])
    assert said(capsys, home, "enable", "night")[0] == 0
    assert said(capsys, home, "remove", "CT 1")[0] == 0
    (left,) = json.loads(said(capsys, home, "list", "--json")[1])
    assert (left["name"], left["active"]) == ("night", True)


def test_what_did_not_come_is_shown_and_tried_anew(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, home, "add", "CT 1")
    with opened(home) as archive:
        lost = {SOPInstanceUID("1.2.3"): InstanceMemory(came=False, attempts=8)}
        memory = PollMemory(archive.database)
        memory.note(AETitle("CT 1"), StudyInstanceUID("1.2"), lost, "C-MOVE 0xB000")
    out = said(capsys, home, "show", "CT 1")[1]
    assert "1.2\t1.2.3\t8\tTrue\tC-MOVE 0xB000" in out
    assert said(capsys, home, "retry", "CT 1")[1] == "1 instances are tried anew\n"
    assert "1.2.3" not in said(capsys, home, "show", "CT 1")[1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("add", "NOBODY"), exits.FAILED, "no peer is named NOBODY"),
        (("add", "CT 1", "--cron", "never"), exits.USAGE, "cron expression 'never'"),
        (("add", "CT 1", "--match", "Modality=CT"), exits.FAILED, "is a key of SERIES level"),
        (("add", "CT 1", "--match", "modality"), exits.USAGE, "is not KEYWORD=VALUE"),
        (("add", "CT 1", "--window-days", "-1"), exits.USAGE, "--window-days"),
        (("run", "gone"), exits.FAILED, "no poll is named gone"),
        (("remove", "gone"), exits.FAILED, "no poll is named gone"),
        (("enable", "gone"), exits.FAILED, "no poll is named gone"),
        (("retry", "gone"), exits.FAILED, "no poll is named gone"),
    ],
)
def test_what_cannot_be_is_said_on_one_line(
    home: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    ended, out, err = said(capsys, home, *arguments)
    assert (ended, out) == (code, "")
    assert words in err.splitlines()[-1]


def test_the_poll_of_a_peer_that_was_removed_is_given_up(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, home, "add", "CT 1")
    with opened(home) as archive:
        archive.peers.remove(ADMIN, "CT 1")
        with pytest.raises(Permanent, match="no peer is named CT 1"):
            Polling(archive).run(Watched(PollWork(poll="CT 1")))
