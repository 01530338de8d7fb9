"""The audit trail of a running server: every access on record, chained, and told to a real rsyslog."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.archive import PACS, Archive, Tool, run, serving
from tests.auditing import Rsyslog, checked, details, event_of, papers, until
from tests.crash import associated, ct, store

STUDIES = ("1.2.826.0.1.3680043.10.998.6.1", "1.2.826.0.1.3680043.10.998.6.2")
IMAGES = 4
SERVED = {"serve.listeners": "2", "dicom.any_called_ae_title": "false"}


@pytest.fixture(scope="module")
def collector(
    tmp_path_factory: pytest.TempPathFactory, peer_tool: Callable[[str], str]
) -> Iterator[tuple[Rsyslog, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("rsyslog")
    signed = papers(folder)
    one = Rsyslog(peer_tool("rsyslogd"), folder, signed)
    one.start()
    named = {
        "collector_host": "127.0.0.1",
        "collector_port": str(one.port),
        "collector_ca": str(signed.ca),
        "certificate": str(signed.client),
        "confirm_s": "0.3",
        "fold_quiet_s": "5",
        "retry_max_s": "0.5",
    }
    yield one, {f"audit.{key}": value for key, value in named.items()}
    one.stop()


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory,
    collector: tuple[Rsyslog, dict[str, str]],
    peer_tool: Tool,
) -> Archive:
    """An archive that was stored to, asked, changed and ended; only its home is left."""
    folder = tmp_path_factory.mktemp("audit")
    with serving(folder / "home", settings={**collector[1], **SERVED}) as archive:
        for study in STUDIES:
            with associated(archive.port, ae_title="PACS") as association:
                for _ in range(IMAGES):
                    assert association.send_c_store(ct(study=study)).Status == 0x0000
        asked = ("-S", "-aec", "PACS", "-k", "QueryRetrieveLevel=STUDY")
        where = ("-k", f"StudyInstanceUID={STUDIES[0]}", "127.0.0.1", str(archive.port))
        assert run(peer_tool("findscu"), *asked, "-k", "PatientName=Secret*", *where).code == 0
        (folder / "got").mkdir()
        got = run(peer_tool("getscu"), *asked, "-od", str(folder / "got"), *where)
        assert got.code == 0 and len(list((folder / "got").iterdir())) == IMAGES
        run(peer_tool("echoscu"), "-aec", "NOBODY", "127.0.0.1", str(archive.port))
        archive.pacs("peer", "add", "READING", "127.0.0.1", "11113")
        archive.pacs("delete", "study", STUDIES[1], "--reason", "test")
    return archive


def pacs(archive: Archive, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [*PACS, *arguments], env=archive.environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


def listed(archive: Archive, *arguments: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(archive.pacs("audit", "list", *arguments, "--json"))
    return rows


def test_every_access_is_on_record_and_no_patient(home: Archive) -> None:
    rows = listed(home)
    events = [one["event"] for one in rows]
    assert events[0] == "started" and "stopped" in events
    assert events.count("C-STORE") == 2 * IMAGES
    wanted = ("association", "C-FIND", "retrieve-begun", "C-GET", "association-refused")
    assert {*wanted, "peer-changed", "deleted"} <= set(events)
    assert [one["n"] for one in rows] == list(range(1, len(rows) + 1))
    by = {one["event"]: one for one in rows}
    assert by["C-STORE"]["study"] in STUDIES and by["deleted"]["study"] == STUDIES[1]
    assert by["C-GET"]["completed"] == IMAGES and by["C-GET"]["study"] == [STUDIES[0]]
    assert "00100010" in by["C-FIND"]["keys"]
    assert "Secret" not in json.dumps(rows)


def test_records_are_chosen_by_event_subscriber_and_time(home: Archive) -> None:
    assert len(listed(home, "--event", "C-STORE", "--subscriber", "local")) == 2 * IMAGES
    assert listed(home, "--event", "C-STORE", "--subscriber", "nobody") == []
    assert listed(home, "--since", "2999-01-01") == []


def test_rsyslog_was_told_of_everything(
    home: Archive, collector: tuple[Rsyslog, dict[str, str]]
) -> None:
    def told() -> list[tuple[str, list[str]]]:
        return [event_of(one) for one in collector[0].messages()]

    assert until(lambda: ("Application Activity", ["Application Stop"]) in told())
    wanted = {
        "Application Activity",
        "DICOM Instances Transferred",
        "Begin Transferring DICOM Instances",
        "Query",
        "Security Alert",
        "DICOM Study Deleted",
    }
    assert until(lambda: wanted <= {event for event, _ in told()}), told()
    kinds = [kind for _, found in told() for kind in found]
    assert {"Node Authentication", "Network Configuration", "Application Start"} <= set(kinds)
    stores = [
        (study.get("ParticipantObjectID"), details(one)["NumberOfInstances"])
        for one in collector[0].messages()
        if event_of(one)[0] == "DICOM Instances Transferred"
        and one.find("EventIdentification[@EventActionCode='C']") is not None
        for study in [one.find("ParticipantObjectIdentification")]
        if study is not None
    ]
    for study in STUDIES:
        assert sum(int(count) for uid, count in set(stores) if uid == study) >= IMAGES


def test_the_export_holds_to_the_schema(home: Archive) -> None:
    messages = [checked(line.encode()) for line in home.pacs("audit", "export").splitlines()]
    events = [event_of(one)[0] for one in messages]
    assert events.count("DICOM Instances Transferred") == len(STUDIES) + 1
    newest = max(messages, key=happened)
    assert event_of(newest)[0] == "Audit Log Used", "the export itself; what is folded follows it"


def happened(message: ET.Element) -> datetime:
    """When what a message tells of began."""
    (event,) = message.iter("EventIdentification")
    return datetime.fromisoformat(str(event.get("EventDateTime")))


def test_metrics_say_how_the_trail_is(home: Archive) -> None:
    text = home.pacs("metrics")
    values = dict(line.split() for line in text.splitlines() if line.startswith("pacs_audit_"))
    assert float(values["pacs_audit_records"]) > 2 * IMAGES
    assert float(values["pacs_audit_missed_records"]) == 0
    assert float(values["pacs_audit_send_failures"]) == 0
    assert float(values["pacs_audit_unsent_records"]) >= 0


def test_what_somebody_changes_is_found_with_its_place(home: Archive) -> None:
    """The last test of this module: the trail stays damaged."""
    assert pacs(home, "audit", "verify")[0] == 0
    path = max((home.home / "audit").glob("*.jsonl"))
    path.write_bytes(path.read_bytes().replace(b'"deleted"', b'"listed!"'))
    code, said = pacs(home, "audit", "verify", "--json")
    (found,) = json.loads(said)
    assert (code, found["file"], found["kind"]) == (3, path.name, "changed")
    assert b'"listed!"' in path.read_bytes().splitlines()[found["line"] - 1]
    verified = listed(home, "--event", "audit-verified")
    assert [one["damages"] for one in verified] == [0, 1]
    assert verified[-1]["place"] == f"{path.name}:{found['line']}"


def test_a_dead_collector_costs_the_server_nothing(tmp_path: Path) -> None:
    """Nobody listens at its address: stores are answered, records stay; ``serving`` bounds the end."""
    settings = {"audit.collector_host": "127.0.0.1", "audit.collector_port": "9"}
    with serving(tmp_path / "home", settings={**settings, "serve.listeners": "1"}) as archive:
        assert store(archive.port, ct()).Status == 0x0000
        assert until(lambda: "pacs_audit_send_failures 0" not in archive.pacs("metrics"))
    assert pacs(archive, "audit", "verify")[0] == 0
    text = archive.pacs("metrics")
    values = dict(line.split() for line in text.splitlines() if line.startswith("pacs_audit_"))
    assert values["pacs_audit_unsent_records"] == values["pacs_audit_records"]


def test_files_that_commands_send_and_fetch_are_on_record(tmp_path: Path) -> None:
    with serving(tmp_path / "home", settings={"serve.listeners": "1"}) as archive:
        at = f"PACS@127.0.0.1:{archive.port}"
        one = ct()
        one.save_as(tmp_path / "one.dcm", enforce_file_format=True)
        archive.pacs("send", at, str(tmp_path / "one.dcm"))
        study = f"StudyInstanceUID={one.StudyInstanceUID}"
        archive.pacs("get", at, "--level", "STUDY", study, "--to", str(tmp_path / "got"))
        by = {row["event"]: row for row in listed(archive)}
        assert (by["files-sent"]["peer"], by["files-sent"]["sent"]) == ("PACS", 1)
        assert by["files-received"]["files"] == 1
    beside_a_home_of_a_workers_own(archive, tmp_path / "node")
    without_its_head(archive)
    without_its_folders(archive)


def beside_a_home_of_a_workers_own(archive: Archive, home: Path) -> None:
    """What is in a store that another machine's server fills was never to be on record here."""
    named = {"PACS_HOME": str(home), "PACS_STORAGE__PATH": str(archive.home / "store")}
    node = replace(archive, home=home, environment={**archive.environment, **named})
    home.mkdir()
    node.pacs("init")
    node.pacs("peer", "add", "LATER", "127.0.0.1", "104")
    assert pacs(node, "audit", "verify")[0] == 0
    assert "peer-changed" in [row["event"] for row in listed(node)]


def without_its_head(archive: Archive) -> None:
    """What a power loss may leave: commands go on to be recorded, and the trail says what it lost."""
    (archive.home / "audit-chain" / "head").write_bytes(b"")
    code, said = pacs(archive, "audit", "verify")
    assert code == 3 and "key or head of the chain is gone" in said
    archive.pacs("peer", "add", "LATER", "127.0.0.1", "104")
    code, said = pacs(archive, "audit", "verify")
    assert code == 3 and "audit-broken" in said and "head was lost" in said
    events = [row["event"] for row in listed(archive)]
    assert events.index("files-sent") < events.index("audit-broken") < events.index("peer-changed")


def without_its_folders(archive: Archive) -> None:
    """A chain that begins anew beside a store that is used does not pass for a whole one."""
    shutil.rmtree(archive.home / "audit-chain")
    archive.pacs("peer", "add", "LATER", "127.0.0.1", "105")
    code, said = pacs(archive, "audit", "verify")
    assert code == 3 and ".unchained" in said and "nobody can tell" in said
    for one in (archive.home / "audit").iterdir():
        one.unlink()
    shutil.rmtree(archive.home / "audit-chain")
    code, said = pacs(archive, "audit", "verify")
    assert code == 3 and "instances are held" in said
    code, said = pacs(archive, "audit", "verify")  # the record of it began a chain
    assert code == 3 and "audit-broken" in said
