"""``pacs subscriber`` and what ``pacs peer`` says of subscribers: what is printed, and the exit codes.

In this process on SQLite; what the services do on either database is in
``tests/integration/test_subscriber.py``.
"""

import json
import os
import pty
import select
import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from config.settings import Dicom, Settings
from pacs.app.gate import refuse_strangers
from pacs.app.subscriber import enrolments
from pacs.cli.main import run
from pacs.core.caller import Candidate
from pacs.core.errors import SettingsInvalid
from pacs.core.identifiers import AETitle, SOPClassUID
from pacs.core.records import Snapshot
from pacs.services.passcode import matches
from tests.keeping import data_set, keep, opened

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Shell:
    """Runs ``pacs`` on one home, in this process."""

    home: Path
    settings: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, code: int = 0, typed: str = "") -> tuple[str, str]:
        """Run a command; it must end with ``code``, and complain on one line where it fails."""
        said, complained = StringIO(), StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            redirect_stdout(said),
            redirect_stderr(complained),
        ):
            patch.setenv("PACS_HOME", str(self.home))
            for name, value in self.settings.items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdin", StringIO(typed))
            ended = run(arguments)
        assert ended == code, f"{arguments}: {ended} {complained.getvalue()}"
        assert "Traceback" not in complained.getvalue()
        if code == 1:
            assert complained.getvalue().startswith("pacs: ")
            assert complained.getvalue().count("\n") == 1
        return said.getvalue(), complained.getvalue()

    def json(self, *arguments: str) -> list[dict[str, Any]]:
        """Run a list with ``--json``."""
        rows: list[dict[str, Any]] = json.loads(self(*arguments, "--json")[0])
        return rows

    def show(self, name: str = "rad") -> dict[str, Any]:
        """Show one subscriber."""
        (shown,) = self.json("subscriber", "show", name)
        return shown


@pytest.fixture
def pacs(tmp_path: Path) -> Shell:
    shell = Shell(home=tmp_path / "home")
    shell("init")
    return shell


def certificate(path: Path) -> str:
    """Write a certificate in PEM form; gives the fingerprint of its DER form."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ct1")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, SHA256())
    )
    path.write_bytes(made.public_bytes(Encoding.PEM))
    return sha256(made.public_bytes(Encoding.DER)).hexdigest()


def test_a_contract_from_its_first_word_to_its_last(pacs: Shell) -> None:
    said, hints = pacs("subscriber", "add", "rad", "--issuer", "Klinik Süd", "--right", "query",
                       "--from", "2026-01-31", "--until", "2027-01-31T12:00+01:00",
                       "--allocation", "1.5")  # fmt: skip
    assert said == "rad is active\n"
    assert "pacs peer add AE HOST PORT --subscriber rad" in hints
    assert "may do nothing yet" in pacs("subscriber", "add", "ward", "--pending")[1]
    pacs("subscriber", "add", "RAD", code=1)
    pacs("subscriber", "add", "local", code=1)
    assert pacs("subscriber", "grant", "rad", "register", "read")[0] == (
        "rad may query, read, register\n"
    )
    assert pacs("subscriber", "revoke", "rad", "query", "read", "register")[0] == (
        "rad may nothing\n"
    )
    pacs("subscriber", "grant", "rad", "connect", code=2)
    pacs("subscriber", "grant", "rad", code=2)
    pacs("subscriber", "grant", "nobody", "query", code=1)
    pacs("subscriber", "suspend", "rad", code=2)
    pacs("subscriber", "suspend", "rad", "--reason", "unpaid")
    known = {
        "name": "rad",
        "state": "suspended",
        "reason": "unpaid",
        "issuer_of_patient_id": "Klinik Süd",
        "rights": [],
        "destinations": [],
        "agreements": [],
        "purposes": [],
        "purpose": "",
        "allocation_bytes": 1_500_000_000,
        "begins_utc": "2026-01-31T00:00:00+00:00",
        "ends_utc": "2027-01-31T11:00:00+00:00",
    }
    rows = pacs.json("subscriber", "list")
    assert rows[0] == known
    assert (rows[1]["name"], rows[1]["state"]) == ("ward", "pending")
    assert pacs("subscriber", "list")[0].splitlines()[0] == (
        "rad\tsuspended\t\tKlinik Süd\t2026-01-31T00:00Z\t2027-01-31T11:00Z\tunpaid"
    )
    pacs("subscriber", "resume", "rad")
    pacs("subscriber", "resume", "rad", code=1)


def test_terms_change_and_go(pacs: Shell) -> None:
    pacs("subscriber", "add", "rad", "--from", "2026-01-31", "--allocation", "1")
    pacs("subscriber", "change", "rad", code=2)
    pacs("subscriber", "change", "rad", "--until", "tomorrow", code=2)
    pacs("subscriber", "change", "rad", "--allocation", "much", code=2)
    pacs("subscriber", "change", "rad", "--until", "2026-01-01", code=1)
    pacs("subscriber", "change", "rad", "--from", "none", "--until", "2026-06-30",
         "--allocation", "none", "--issuer", "x")  # fmt: skip
    shown = pacs.show()
    assert (shown["begins_utc"], shown["allocation_bytes"]) == (None, None)
    assert shown["ends_utc"] == "2026-07-01T00:00:00+00:00", "a day is the last, all of it"


def test_ending_a_contract_says_who_still_sees_its_images(pacs: Shell) -> None:
    pacs("subscriber", "add", "rad")
    pacs("subscriber", "add", "ward")
    pacs("subscriber", "cancel", "rad", "--reason", "moved", code=2)
    pacs("subscriber", "cancel", "rad", "--reason", "moved", "--images-to", "ward",
         "--images-to-nobody", code=2)  # fmt: skip
    pacs("subscriber", "remove", "rad", code=1)
    pacs("subscriber", "cancel", "rad", "--reason", "moved", "--images-to", "ward")
    assert pacs.show("ward")["agreements"] == [
        {"owner": "rad", "study_instance_uid": None, "purpose": ""}
    ]
    assert pacs.show()["images_seen_by"] == ["ward"]
    pacs("subscriber", "remove", "rad")
    assert [one["name"] for one in pacs.json("subscriber", "list")] == ["ward"]
    history = pacs.json("subscriber", "history", "rad")
    assert [one["what"] for one in history] == [
        "added as active, issuer rad, no rights", "cancelled, images to ward", "removed",
    ]  # fmt: skip
    assert {one["who"] for one in history} == {"admin"}
    assert "\tmoved\n" in pacs("subscriber", "history", "rad")[0]
    pacs("subscriber", "history", "nobody", code=1)
    pacs("subscriber", "show", "rad", code=1)


def test_devices_belong_to_subscribers(pacs: Shell, tmp_path: Path) -> None:
    fingerprint = certificate(tmp_path / "ct1.pem")
    pacs("subscriber", "add", "rad")
    said, _ = pacs("peer", "add", "CT1", "ct1.example", "104", "--subscriber", "rad", "--tls",
                   "--network", "192.0.2.7", "--network", "2001:db8::/32",
                   "--certificate", str(tmp_path / "ct1.pem"))  # fmt: skip
    assert said.startswith("CT1 is ct1.example:104, of rad, over TLS, from 192.0.2.7/32, ")
    (listed,) = pacs.json("peer", "list")
    bound = {
        "tls": True,
        "networks": ["192.0.2.7/32", "2001:db8::/32"],
        "certificate_fingerprint": fingerprint,
    }
    assert listed == {**listed, **bound, "subscriber": "rad"}
    (shown,) = pacs.show()["peers"]
    assert shown == {**shown, **bound, "ae_title": "CT1"}
    assert (
        f"peers\tCT1 ct1.example:104 TLS from 192.0.2.7/32, 2001:db8::/32, certificate {fingerprint}"
        in pacs("subscriber", "show", "rad")[0].splitlines()
    )
    again = ("peer", "add", "CT1", "192.0.2.7", "104")
    for more in ((), ("--subscriber", "rad"), ("--associations", "2")):
        said = pacs(*again, *more)[0]
        assert said == "CT1 is 192.0.2.7:104, of rad, over TLS, from 192.0.2.7/32, 2001:db8::/32, " \
            f"certificate {fingerprint}\n"  # fmt: skip
        kept = pacs.json("peer", "list")[0]
        assert kept == {**kept, **bound, "subscriber": "rad"}, "nothing is dropped by silence"
    pacs(*again, "--network", "192.0.2.7", "--any-network", code=2)
    pacs(*again, "--subscriber", "nobody", code=1)
    pacs(*again, "--subscriber", "rad", "--no-subscriber", code=2)
    pacs(*again, "--subscriber", "", code=2)
    pacs(*again, "--subscriber", "rad", "--no-certificate", "--network", "192.0.2.7/24", code=1)
    (tmp_path / "none.pem").write_text("no certificate")
    pacs(*again, "--subscriber", "rad", "--certificate", str(tmp_path / "none.pem"), code=2)
    pacs(*again, "--subscriber", "rad", "--no-certificate")
    kept = pacs.json("peer", "list")[0]
    assert kept == {**kept, **bound, "certificate_fingerprint": ""}
    pacs(*again, "--any-network", "--no-tls")
    kept = pacs.json("peer", "list")[0]
    assert (kept["networks"], kept["tls"], kept["subscriber"]) == ([], False, "rad")
    pacs(*again, "--no-subscriber")
    assert pacs.show()["peers"] == []
    pacs(*again, "--subscriber", "rad")
    pacs("subscriber", "cancel", "rad", "--reason", "r", "--images-to-nobody")
    pacs("route", "add", "all", "--to", "CT1")
    hint = pacs("subscriber", "remove", "rad")[1]
    assert "its devices went with it: CT1" in hint and "still destinations of: all" in hint
    assert pacs.json("peer", "list") == []


def test_users(pacs: Shell) -> None:
    pacs("subscriber", "add", "rad")
    add = ("subscriber", "user", "add", "rad")
    pacs(*add, "jane", typed="a good passcode\nand more\n")
    pacs(*add, "joe", typed="short\n", code=1)
    pacs(*add, "joe", code=1)
    pacs(*add, "robot", "--token-only")
    pacs("subscriber", "user", "add", "nobody", "joe", "--token-only", code=1)
    with opened(pacs.home) as archive:
        kept = archive.snapshots.newest().users
        assert matches(b"a good passcode", kept["jane"].passcode)
    pacs(*add, "desk", "--name-only", "--token-only", code=2)
    pacs(*add, "desk", "--name-only")
    assert {"name": "desk", "proof": "name"} in pacs.json("subscriber", "user", "list", "rad")
    pacs("subscriber", "user", "remove", "rad", "desk")
    users = [{"name": "jane", "proof": "passcode"}, {"name": "robot", "proof": "token"}]
    assert pacs.json("subscriber", "user", "list", "rad") == users == pacs.show()["users"]
    pacs("subscriber", "user", "list", "nobody", code=1)
    pacs("subscriber", "user", "remove", "rad", "jane")
    assert "users\trobot (token)" in pacs("subscriber", "show", "rad")[0].splitlines()
    pacs("subscriber", "user", "remove", "rad", "jane", code=1)


def test_purposes_agreements_and_destinations(pacs: Shell) -> None:
    pacs("subscriber", "add", "rad")
    pacs("subscriber", "add", "ward")
    purpose = ("subscriber", "purpose", "add", "rad", "teaching")
    pacs(*purpose, "--modality", "CT", "--modality", "MR", "--max-matrix", "512", "--no-process",
         "--no-report", "--default")  # fmt: skip
    pacs(*purpose, "--modality", "ct", code=1)
    pacs(*purpose, "--max-matrix", "0", code=2)
    pacs(*purpose, "--max-matrix", "1", "--no-max-matrix", code=2)
    pacs(*purpose, "--modality", "CT", "--any-modality", code=2)
    pacs(*purpose)  # lifts nothing
    pacs("subscriber", "agree", "rad", code=2)
    pacs("subscriber", "agree", "rad", "--archive", "--owner", "ward", code=2)
    pacs("subscriber", "agree", "rad", "--archive", "--study", "1.2", code=2)
    pacs("subscriber", "agree", "rad", "--owner", "nobody", code=1)
    pacs("subscriber", "agree", "rad", "--owner", "ward", "--study", "not a UID", code=1)
    pacs("subscriber", "agree", "rad", "--archive", "--purpose", "teaching")
    pacs("subscriber", "agree", "rad", "--owner", "ward", "--study", "1.2")
    pacs("subscriber", "destination", "add", "rad", "WS1")
    pacs("subscriber", "destination", "add", "rad", "SEVENTEEN_LETTERS", code=1)
    shown = pacs.show()
    assert shown["purposes"] == [
        {
            "name": "teaching",
            "modalities": ["CT", "MR"],
            "max_matrix": 512,
            "process": False,
            "report": False,
        }
    ]
    assert (shown["purpose"], shown["destinations"]) == ("teaching", ["WS1"])
    lines = pacs("subscriber", "show", "rad")[0].splitlines()
    for line in (
        "agreements\tthe whole archive for teaching",
        "agreements\tstudy 1.2 of ward",
        "purposes\tteaching, CT MR, at most 512, no process, no report",
    ):
        assert line in lines
    take_back(pacs)


def take_back(pacs: Shell) -> None:
    """What was agreed ends as it was made, in an order that leaves nothing without its bounds."""
    pacs("subscriber", "purpose", "remove", "rad", "teaching", code=1)
    lifted = ("--any-modality", "--no-max-matrix", "--process", "--report")
    pacs("subscriber", "purpose", "add", "rad", "teaching", *lifted)
    assert "purposes\tteaching, all" in pacs("subscriber", "show", "rad")[0].splitlines()
    pacs("subscriber", "disagree", "rad", "--archive", code=1)
    pacs("subscriber", "disagree", "rad", "--archive", "--purpose", "teaching")
    pacs("subscriber", "change", "rad", "--purpose", "none")
    pacs("subscriber", "purpose", "remove", "rad", "teaching")
    pacs("subscriber", "destination", "remove", "rad", "WS1")
    pacs("subscriber", "destination", "remove", "rad", "WS1", code=1)
    shown = pacs.show()
    assert (shown["purposes"], shown["purpose"], shown["destinations"]) == ([], "", [])
    assert [one["owner"] for one in shown["agreements"]] == ["ward"]


def test_what_serve_says_beyond_loopback_mends_it_as_it_stands(pacs: Shell) -> None:
    """Also beside names that are taken, of a contract that has ended."""

    def snapshot() -> Snapshot:
        with opened(pacs.home) as archive:
            return archive.snapshots.newest()

    pacs("subscriber", "add", "Clinic", "--from", "2020-01-01", "--until", "2020-12-31")
    pacs("peer", "add", "MODALITY", "192.0.2.1", "104", "--subscriber", "Clinic")
    everywhere = Settings(dicom=Dicom(host="0.0.0.0"))
    with pytest.raises(SettingsInvalid, match="nobody could be admitted") as raised:
        refuse_strangers(everywhere, snapshot())
    _, _, mending = str(raised.value).partition("port: ")
    for command in mending.split(" && "):
        program, *arguments = shlex.split(command)
        assert program == "pacs"
        pacs(*arguments)
    after = snapshot()
    refuse_strangers(everywhere, after)
    assert after.peers[AETitle("MODALITY")].subscriber == "Clinic", "nobody's device was taken"


def test_a_device_enrols_itself_and_is_accepted(pacs: Shell) -> None:
    said, hint = pacs("subscriber", "code", "add", "--right", "register", "--uses", "2",
                      "--until", "2999-12-31")  # fmt: skip
    code = said.strip()
    assert "number is 1" in hint
    (row,) = pacs.json("subscriber", "code", "list")
    assert (row["id"], row["rights"], row["uses_left"]) == (1, ["register"], 2)
    assert row["until"] == "3000-01-01T00:00:00+00:00"
    assert code not in pacs("subscriber", "code", "list")[0]
    came = Candidate(
        calling_ae_title=AETitle("US1"),
        called_ae_title=AETitle("PACS"),
        address="192.0.2.9",
        port=5_000,
        sop_classes=(SOPClassUID("1.2.840.10008.1.1"),),
    )
    with opened(pacs.home) as archive:
        desk = enrolments(archive.database, archive.audit, archive.settings.subscriber)
        assert desk.enrol(code.encode(), came) == "US1"
    shown = pacs.show("US1")
    assert shown["state"] == "pending"
    (peer,) = shown["peers"]
    assert (peer["ae_title"], peer["networks"]) == ("US1", ["192.0.2.9/32"])
    assert shown["enrolled"]["sop_classes"] == ["1.2.840.10008.1.1"]
    assert shown["enrolled"]["certificate_subject"] is None
    assert "enrolled address\t192.0.2.9" in pacs("subscriber", "show", "US1")[0].splitlines()
    pacs("subscriber", "accept", "US1", "--as", "no name", code=1)
    assert pacs("subscriber", "accept", "US1", "--as", "echo-lab")[0] == "echo-lab may register\n"
    pacs("subscriber", "accept", "echo-lab", code=1)
    assert pacs.json("peer", "list")[0]["subscriber"] == "echo-lab"
    pacs("subscriber", "code", "remove", "1")
    pacs("subscriber", "code", "remove", "1", code=1)
    pacs("subscriber", "code", "add", "--uses", "0", code=2)
    assert pacs.json("subscriber", "code", "list") == []


def test_contracts_travel_as_a_file(pacs: Shell, tmp_path: Path) -> None:
    pacs("subscriber", "add", "rad", "--right", "query")
    pacs("subscriber", "user", "add", "rad", "jane", typed="a good passcode\n")
    pacs("peer", "add", "CT1", "192.0.2.7", "104", "--subscriber", "rad")
    before = pacs.show()
    text = pacs("subscriber", "export")[0]
    pacs("subscriber", "export", "nobody", code=1)
    (tmp_path / "file.json").write_text(text)
    pacs("subscriber", "import", str(tmp_path / "file.json"), code=1)
    pacs("subscriber", "revoke", "rad", "query")
    assert pacs("subscriber", "import", "--replace", str(tmp_path / "file.json"))[0] == "rad\n"
    assert pacs.show() == before
    (tmp_path / "file.json").write_bytes(b"\xff\xfe")
    pacs("subscriber", "import", str(tmp_path / "file.json"), code=2)
    (tmp_path / "file.json").write_text("{}")
    pacs("subscriber", "import", str(tmp_path / "file.json"), code=1)


def test_bytes_held_stand_beside_the_allocation(pacs: Shell) -> None:
    with opened(pacs.home) as archive:
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"), registrant="rad")
    assert "before are now its own" in pacs("subscriber", "add", "rad", "--allocation", "2")[1]
    shown = pacs.show()
    size_bytes = sum(one.stat().st_size for one in (pacs.home / "store").rglob("*.dcm"))
    assert (shown["held_files"], shown["held_bytes"]) == (1, size_bytes)
    assert shown["allocation_bytes"] == 2_000_000_000


def read_until(descriptor: int, words: bytes) -> bytes:
    """Read what is printed up to ``words``; whatever is typed before would be thrown away."""
    said = b""
    while not said.endswith(words):
        assert select.select([descriptor], [], [], 60)[0], said
        piece = os.read(descriptor, 1)
        assert piece, said
        said += piece
    return said


def test_a_passcode_is_asked_for_at_a_terminal_and_not_shown(pacs: Shell) -> None:
    pacs("subscriber", "add", "rad")
    ours, theirs = pty.openpty()
    asking = subprocess.Popen(
        [sys.executable, "-m", "pacs.cli.main", "subscriber", "user", "add", "rad", "jane"],
        env={**os.environ, "PACS_HOME": str(pacs.home), "PYTHONPATH": str(REPOSITORY)},
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert asking.stderr is not None
        said = b""
        for question in (b"Passcode of jane: ", b"confirmation: "):
            said += read_until(asking.stderr.fileno(), question)
            os.write(ours, b"a good passcode\n")
        printed, complained = asking.communicate(timeout=60)
    finally:
        asking.kill()
        asking.wait()
        os.close(theirs)
        os.close(ours)
    assert (asking.returncode, printed) == (0, b"jane is a user of rad\n"), complained
    assert b"a good passcode" not in said + complained
    with opened(pacs.home) as archive:
        assert matches(b"a good passcode", archive.snapshots.newest().users["jane"].passcode)


def test_without_an_archive(tmp_path: Path) -> None:
    shell = Shell(home=tmp_path / "nothing")
    for command in (["list"], ["show", "a"], ["code", "list"], ["export"], ["user", "list", "a"]):
        assert "init" in shell("subscriber", *command, code=1)[1]
