"""Every command an administrator has: what it prints and its exit code.

On SQLite through the real ``pacs`` process; on PostgreSQL the same commands
run in this one, because starting a process costs more than the command.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

from pacs.app.home import exclusive
from pacs.cli.main import run
from tests import forked
from tests.keeping import data_set, keep, object_ids, opened

REPOSITORY = Path(__file__).resolve().parents[2]


def _process(arguments: Sequence[str], named: Mapping[str, str]) -> tuple[int, str, str]:
    done = forked.run_first_fresh(arguments, {**os.environ, **named})
    return done.returncode, done.stdout, done.stderr


def _here(arguments: Sequence[str], named: Mapping[str, str]) -> tuple[int, str, str]:
    said, complained = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(complained):
        for name, value in named.items():
            patch.setenv(name, value)
        code = run(arguments)
    return code, said.getvalue(), complained.getvalue()


@dataclass(frozen=True, kw_only=True)
class Shell:
    """Runs ``pacs`` on one home."""

    home: Path
    url: str

    def __call__(self, *arguments: str, code: int = 0, **settings: str) -> tuple[str, str]:
        """Run a command; it must end with ``code``."""
        named: Mapping[str, str] = {
            "PACS_HOME": str(self.home),
            "PACS_DATABASE__URL": self.url,
            "PACS_STORAGE__RESERVE_BYTES": "0",
            "PYTHONPATH": str(REPOSITORY),
            **settings,
        }
        ended, said, complained = (_here if self.url else _process)(arguments, named)
        assert ended == code, f"{arguments}: {ended} {complained}"
        assert "Traceback" not in complained
        return said, complained

    def json(self, *arguments: str) -> list[dict[str, object]]:
        """Run a list with ``--json``."""
        rows: list[dict[str, object]] = json.loads(self(*arguments, "--json")[0])
        return rows


@pytest.fixture
def pacs(new_database: Callable[[], str], tmp_path: Path) -> Shell:
    shell = Shell(home=tmp_path / "home", url=new_database())
    shell("init")
    return shell


def fill(pacs: Shell) -> list[str]:
    """Two studies, one SOP Instance in two contents; gives the ids of the latter."""
    with opened(pacs.home, pacs.url) as archive:
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"))
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.1", StudyDescription="other"))
        keep(archive, data_set("1.2", "1.2.1", "1.2.1.1", PatientID="P2", PatientName="Roe^Rick"))
        return object_ids(archive, "1.1.1.1")


def test_peers(pacs: Shell) -> None:
    pacs("peer", "add", "DEST", "127.0.0.1", "11113")
    pacs("peer", "add", "DEST", "localhost", "11114")
    known: dict[str, object] = {
        "ae_title": "DEST",
        "host": "localhost",
        "port": 11114,
        "associations": 1,
        "encoding": "as-stored",
        "rate_mbit_s": None,
        "tls": False,
        "subscriber": None,
        "networks": [],
        "certificate_fingerprint": "",
    }
    assert pacs.json("peer", "list") == [known]
    assert pacs("peer", "list")[0] == "DEST\tlocalhost\t11114\t1\tas-stored\t\tFalse\t\t\t\n"
    pacs("peer", "add", "DEST", "localhost", "11114", "--associations", "4")
    assert pacs.json("peer", "list") == [{**known, "associations": 4}]
    policy = ("--encoding", "compressed", "--rate", "2.5")
    pacs("peer", "add", "DEST", "localhost", "11114", *policy)
    assert pacs.json("peer", "list") == [{**known, "encoding": "compressed", "rate_mbit_s": 2.5}]
    pacs("peer", "add", "DEST", "localhost", "11114")
    assert pacs.json("peer", "list") == [known], "what is not given is as usual again"
    pacs("peer", "add", "DEST", "localhost", "104", "--encoding", "lossy", code=2)
    pacs("peer", "add", "DEST", "localhost", "104", "--rate", "0", code=2)
    pacs("peer", "add", "DEST", "localhost", "104", "--associations", "0", code=2)
    pacs("peer", "add", "DEST", "localhost", "104", "--associations", "17", code=2)
    pacs("peer", "add", "DEST", "localhost", "70000", code=2)
    pacs("peer", "add", "SEVENTEEN_LETTERS", "localhost", "104", code=1)
    pacs("peer", "remove", "DEST")
    pacs("peer", "remove", "DEST", code=1)
    assert pacs.json("peer", "list") == []


def test_listing_and_counting(pacs: Shell) -> None:
    fill(pacs)
    assert pacs("ls")[0].splitlines()[0].split("\t")[:2] == ["1.1", "P1"]
    assert [one["PatientID"] for one in pacs.json("ls", "patients")] == ["P1", "P2"]
    assert len(pacs.json("ls", "series")) == len(pacs.json("ls", "instances")) == 2
    (found,) = pacs.json("ls", "studies", "PatientName=roe*", "StudyDescription")
    assert found["StudyInstanceUID"] == "1.2"
    assert "StudyDescription" in found
    assert pacs.json("ls", "studies", "PatientID=nobody") == []
    assert "NoSuchKeyword" in pacs("ls", "studies", "NoSuchKeyword=1", code=2)[1]
    pacs("ls", "folders", code=2)
    counted = json.loads(pacs("stats", "--json")[0])
    assert (counted["studies"], counted["instances"], counted["open_conflicts"]) == (2, 2, 1)
    assert "studies\t2" in pacs("stats")[0]


def test_slips_of_the_keyboard_are_said_on_one_line(pacs: Shell) -> None:
    for arguments in (
        ("ls", "instances", "InstanceNumber=abc"),
        ("ls", "instances", "Rows=abc"),
        ("ls", "studies", "OtherPatientIDsSequence=x"),
        ("conflict", "show", "9" * 20),
    ):
        assert "unexpected" not in pacs(*arguments, code=1)[1]
    for url in ("postgresql://[::1", "postgresql://a@127.0.0.1:port/b", "mysql://a@b/c"):
        complained = pacs("stats", code=2, PACS_DATABASE__URL=url)[1]
        assert complained.startswith("pacs: database.url: ")


def test_deleting_and_bringing_back(pacs: Shell) -> None:
    fill(pacs)
    pacs("delete", "study", "1.2", code=2)
    pacs("delete", "study", "9.9", "--reason", "r", code=1)
    said, _ = pacs("delete", "study", "1.2", "--reason", "wrong patient")
    assert len(pacs.json("ls")) == 1
    (pending,) = pacs.json("delete", "list")
    assert pending["instances"] == 1
    assert str(pending["entry_id"]) in said
    assert pacs("delete", "purge")[0] == "0 files removed\n"
    pacs("delete", "undo", str(pending["entry_id"]), "--reason", "right after all")
    assert len(pacs.json("ls")) == 2
    pacs("delete", "undo", str(pending["entry_id"]), code=1)
    pacs("delete", "instance", "1.2.1.1", "--reason", "r")
    purged, _ = pacs("delete", "purge", PACS_STORAGE__DELETION_DELAY_S="0")
    assert purged == "1 files removed\n"
    assert len(pacs.json("ls", "patients")) == 1
    pacs("verify")


def test_conflicts(pacs: Shell) -> None:
    _, second = fill(pacs)
    (conflict,) = pacs.json("conflict", "list")
    number = str(conflict["id"])
    assert conflict["kind"] == "instance-of-two-contents"
    members = pacs.json("conflict", "show", number)
    assert [one["delivered"] for one in members] == [True, False]
    pacs("conflict", "show", "999", code=1)
    pacs("conflict", "resolve", number, "--reason", "r", code=2)
    pacs("conflict", "resolve", number, "--accept", "--deliver", second, "--reason", "r", code=2)
    pacs("conflict", "resolve", number, "--deliver", "unknown", "--reason", "r", code=1)
    pacs("conflict", "resolve", number, "--deliver", second, "--reason", "r")
    assert [one["delivered"] for one in pacs.json("conflict", "show", number)] == [False, True]
    assert pacs.json("conflict", "list") == []
    (settled,) = pacs.json("conflict", "list", "--all")
    assert settled["open"] is False
    pacs("conflict", "resolve", number, "--accept", "--reason", "seen again")


def test_verifying_and_rebuilding(pacs: Shell) -> None:
    fill(pacs)
    _, said = pacs("verify")
    assert "3 files looked at, 0 damages found" in said
    assert pacs.json("verify") == []
    pacs("reindex")
    assert len(pacs.json("ls")) == 2
    damaged = sorted((pacs.home / "store").rglob("*.dcm"))[0]
    damaged.write_bytes(damaged.read_bytes()[:60])
    (damage,) = json.loads(pacs("verify", "--json", code=3)[0])
    assert damage["kind"] == "corrupt"
    (damage,) = json.loads(pacs("reindex", "--json", code=3)[0])
    assert damage["kind"] == "unreadable"
    assert pacs("verify", code=3)[0].startswith("not-indexed\t")


def test_no_rebuilding_while_somebody_serves(pacs: Shell) -> None:
    fill(pacs)
    with exclusive(pacs.home):
        _, said = pacs("reindex", code=1)
    assert f"in use by process {os.getpid()}" in said


def test_without_an_archive(tmp_path: Path) -> None:
    shell = Shell(home=tmp_path / "nothing", url="")
    for command in (["ls"], ["stats"], ["verify"], ["peer", "list"], ["delete", "list"]):
        assert "init" in shell(*command, code=1)[1]
