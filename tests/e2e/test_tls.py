"""TLS with foreign tools, both ways, and what an admin does with certificates. PS3.15 Section B.12."""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, build_role, evt
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from pacs.services.tls import CertificateMaker, Subject
from tests.archive import (
    PACS,
    TOOL_TIMEOUT_S,
    Archive,
    Tool,
    data_set_of,
    environment,
    free_port,
    run,
    serving,
    storescp,
)
from tests.association_fakes import until
from tests.e2e.test_outbox_orthanc import answers, rest
from tests.keeping import data_set
from tests.raw_peer import (
    EXPLICIT_LITTLE,
    GET,
    IMPLICIT_LITTLE,
    STUDY_ROOT,
    Taken,
    associated,
    identifier,
    matches,
)
from tests.settled import known

CT = "1.2.840.10008.5.1.4.1.1.2"
FIND_MODEL = STUDY_ROOT + "1"
BIG_BYTES = 50_000_000
GROWTH_KIB = 30_000
"""Far below one such object."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """A running archive with TLS, its port, and the certificate of one device."""

    archive: Archive
    port: int

    @property
    def folder(self) -> Path:
        return self.archive.home / "tls"

    @property
    def shown(self) -> list[str]:
        """How DCMTK's tools are told to show the device's certificate and to trust our CA."""
        device = self.folder / "clients" / "DEVICE"
        return ["+tls", f"{device}.key", f"{device}.pem", "+cf", str(self.folder / "ca.pem")]

    def context(self) -> ssl.SSLContext:
        """The device, as a client of the standard library's."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        context.load_cert_chain(
            self.folder / "clients" / "DEVICE.pem", self.folder / "clients" / "DEVICE.key"
        )
        return context

    def audited(self, event: str) -> list[dict[str, object]]:
        """Read the audit trail."""
        lines = [
            json.loads(line)
            for path in sorted((self.archive.home / "audit").iterdir())
            for line in path.read_text().splitlines(keepends=True)
            if line.endswith("\n")  # whole ones
        ]
        return [one for one in lines if one["event"] == event]


def pacs(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PACS, *arguments],
        env=environment(home, {}),
        capture_output=True,
        text=True,
        timeout=TOOL_TIMEOUT_S,
        check=False,
    )


@contextmanager
def opened(home: Path, **settings: str) -> Iterator[Site]:
    port = free_port()
    with serving(home, settings={"tls.port": str(port), **settings}) as archive:
        yield Site(archive=archive, port=port)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("tls") / "home"
    made = CertificateMaker(home)
    made.begin(Subject(name="PACS", hosts=("localhost",)))
    for name in ("DEVICE", "RENEWED"):
        made.client(Subject(name=name, hosts=("localhost",)))
    with opened(home, **{"serve.listeners": "2"}) as one:
        yield one


def ct_file(folder: Path, number: int, size_bytes: int = 100_000) -> Path:
    """Write a CT of a study of its own."""
    made = data_set(f"1.2.{number}", f"1.2.{number}.1", f"1.2.{number}.1.1", PatientID=f"P{number}")
    made.add_new(0x7FE00010, "OW", os.urandom(size_bytes))
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    folder.mkdir(exist_ok=True)
    path = folder / f"{number}.dcm"
    made.save_as(path, enforce_file_format=True)
    return path


def test_dcmtk_asks_stores_and_queries(site: Site, peer_tool: Tool, tmp_path: Path) -> None:
    at = ["127.0.0.1", str(site.port)]
    assert run(peer_tool("echoscu"), *site.shown, *at).code == 0
    file = ct_file(tmp_path, 1)
    assert run(peer_tool("storescu"), *site.shown, *at, str(file)).code == 0
    said = run(
        peer_tool("findscu"),
        *site.shown,
        "-S",
        *at,
        "-k",
        "QueryRetrieveLevel=STUDY",
        "-k",
        "PatientID=P1",
    )
    assert "Doe" not in said.text  # not asked for
    assert "P1" in said.text
    assert any(data_set_of(one) == data_set_of(file) for one in site.archive.kept())
    assert run(peer_tool("echoscu"), "127.0.0.1", str(site.archive.port)).code == 0  # beside it


def test_who_shows_no_certificate_or_speaks_no_tls_is_refused(site: Site, peer_tool: Tool) -> None:
    at = ["127.0.0.1", str(site.port)]
    before = len(site.audited("tls-refused"))
    assert run(peer_tool("echoscu"), "+tla", "-ic", *at).code != 0
    assert until(lambda: len(site.audited("tls-refused")) == before + 1)
    assert run(peer_tool("echoscu"), *at).code != 0
    assert until(lambda: len(site.audited("tls-refused")) == before + 2)
    causes = [one["cause"] for one in site.audited("tls-refused")[before:]]
    assert causes == ["peer did not return a certificate", "wrong version number"]


def test_dcmtk_is_sent_to(site: Site, peer_tool: Tool, tmp_path: Path) -> None:
    files = [ct_file(tmp_path / "files", number, 300_000) for number in (21, 22, 23)]
    with storescp(peer_tool, tmp_path / "received", "+xa", *site.shown) as receiver:
        named = f"STORESCP@127.0.0.1:{receiver.port}"
        site.archive.pacs("echo", "--tls", named)
        site.archive.pacs("send", "--tls", named, str(tmp_path / "files"))
        plain = pacs(site.archive.home, "echo", named)
        assert plain.returncode == 5
        received = sorted(data_set_of(one) for one in receiver.taken())
    assert received == sorted(map(data_set_of, files))


def test_a_peer_that_takes_tls_is_moved_to(site: Site, peer_tool: Tool, tmp_path: Path) -> None:
    file = ct_file(tmp_path, 25, 300_000)
    site.archive.pacs("send", "--tls", f"PACS@127.0.0.1:{site.port}", str(file))
    with storescp(peer_tool, tmp_path / "received", "+xa", *site.shown) as receiver:
        site.archive.pacs("peer", "add", "VIEWER", "127.0.0.1", str(receiver.port), "--tls")
        known(site.archive.port, "VIEWER")
        asked = ["-aem", "VIEWER", "-S", "-k", "QueryRetrieveLevel=STUDY"]
        at = ["127.0.0.1", str(site.archive.port)]
        moved = run(peer_tool("movescu"), *asked, "-k", "StudyInstanceUID=1.2.25", *at)
        assert moved.code == 0, moved.text
        assert [data_set_of(one) for one in receiver.taken()] == [data_set_of(file)]


def test_pynetdicom_queries_and_retrieves(site: Site, tmp_path: Path) -> None:
    file = ct_file(tmp_path, 31, 1_000_000)
    site.archive.pacs("send", "--tls", f"PACS@127.0.0.1:{site.port}", str(file))
    with associated(
        site.port, [(FIND_MODEL, [IMPLICIT_LITTLE])], tls=site.context()
    ) as association:
        found = matches(
            association, STUDY_ROOT, identifier("STUDY", PatientID="P31", StudyInstanceUID="")
        )
        assert [one.StudyInstanceUID for one in found] == ["1.2.31"]
    taken = Taken()
    contexts = [(STUDY_ROOT + GET, [IMPLICIT_LITTLE]), (CT, [EXPLICIT_LITTLE])]
    with associated(site.port, contexts, received=taken, tls=site.context()) as association:
        asked = identifier("STUDY", StudyInstanceUID="1.2.31")
        responses = list(association.send_c_get(asked, STUDY_ROOT + GET))
    assert responses[-1][0].Status == 0
    assert [one.data_set for one in taken.instances] == [data_set_of(file)]


def test_a_large_object_goes_both_ways_and_is_never_held(
    site: Site, peer_tool: Tool, tmp_path: Path
) -> None:
    file = ct_file(tmp_path, 41, BIG_BYTES)
    named = f"PACS@127.0.0.1:{site.port}"
    site.archive.pacs("get", "--tls", named, "StudyInstanceUID=1.9", "--to", str(tmp_path / "none"))
    before_kib = site.archive.resident_kib()
    stored = run(peer_tool("storescu"), *site.shown, "127.0.0.1", str(site.port), str(file))
    assert stored.code == 0
    site.archive.pacs(
        "get", "--tls", named, "StudyInstanceUID=1.2.41", "--to", str(tmp_path / "got")
    )
    assert site.archive.resident_kib() - before_kib < GROWTH_KIB
    (got,) = (tmp_path / "got").iterdir()
    assert data_set_of(got) == data_set_of(file)


@contextmanager
def orthanc(tool: str, folder: Path, site: Site) -> Iterator[tuple[int, int]]:
    """Run Orthanc with TLS both ways; give its DICOM and its REST port."""
    folder.mkdir()
    port, rest_port = free_port(), free_port()
    device = site.folder / "clients" / "DEVICE"
    pacs_itself = {"AET": "PACS", "Host": "127.0.0.1", "Port": site.port, "UseDicomTls": True}
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [],
        "HttpPort": rest_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "DicomModalities": {"pacs": pacs_itself},
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": f"{device}.pem",
        "DicomTlsPrivateKey": f"{device}.key",
        "DicomTlsTrustedCertificates": str(site.folder / "ca.pem"),
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([tool, str(folder / "orthanc.json")], stdout=log, stderr=log)
        try:
            assert until(lambda: answers(rest_port), 60.0)
            yield port, rest_port
        finally:
            process.terminate()
            process.wait()


def test_orthanc_is_sent_to_and_sends(site: Site, peer_tool: Tool, tmp_path: Path) -> None:
    there, back = ct_file(tmp_path, 51), ct_file(tmp_path, 52)
    with orthanc(peer_tool("Orthanc"), tmp_path / "orthanc", site) as (port, rest_port):
        named = f"ORTHANC@127.0.0.1:{port}"
        site.archive.pacs("echo", "--tls", named)
        site.archive.pacs("send", "--tls", named, str(there), str(back))
        held = rest(rest_port, "/instances?expand")
        uids = {one["ID"]: one["MainDicomTags"]["SOPInstanceUID"] for one in held}
        assert sorted(uids.values()) == ["1.2.51.1.1", "1.2.52.1.1"]
        assert rest(rest_port, "/modalities/pacs/echo", {}) == {}
        (chosen,) = (one for one, uid in uids.items() if uid == "1.2.52.1.1")
        sent = rest(
            rest_port, "/modalities/pacs/store", {"Resources": [chosen], "Synchronous": True}
        )
        assert (sent["InstancesCount"], sent["FailedInstancesCount"]) == (1, 0)
    assert any(data_set_of(one) == data_set_of(back) for one in site.archive.kept())


def test_certificates_are_read_again_while_an_association_lasts(site: Site) -> None:
    log = site.archive.home.with_suffix(".log")
    with associated(
        site.port, [("1.2.840.10008.1.1", [IMPLICIT_LITTLE])], tls=site.context()
    ) as association:
        assert association.send_c_echo().Status == 0
        before = shown_by(site)
        for kind in ("pem", "key"):
            renewed = site.folder / "clients" / f"RENEWED.{kind}"
            renewed.replace(site.folder / f"server.{kind}")
        site.archive.process.send_signal(signal.SIGHUP)
        assert until(lambda: log.read_text().count("tls-reloaded") == 2)
        after = shown_by(site)
        assert after != before
        assert association.send_c_echo().Status == 0
        (site.folder / "server.pem").write_text("rubbish")
        site.archive.process.send_signal(signal.SIGHUP)
        assert until(lambda: log.read_text().count("tls-reload-failed") == 2)
        assert shown_by(site) == after
        assert association.send_c_echo().Status == 0


def shown_by(site: Site) -> bytes | None:
    with (
        socket.create_connection(("127.0.0.1", site.port), timeout=60) as plain,
        site.context().wrap_socket(plain, server_hostname="localhost") as encrypted,
    ):
        return encrypted.getpeercert(binary_form=True)


def test_what_cannot_be_served_is_said_at_once(tmp_path: Path) -> None:
    refused = pacs(tmp_path / "home", "serve", "--port", "0", "--tls-port", "2762")
    assert (refused.returncode, "tls.certificate: " in refused.stderr) == (2, True)


def test_tls_alone_is_served_and_what_ends_soon_is_said(site: Site, peer_tool: Tool) -> None:
    """Beside the other archive, with its certificates."""
    home = site.archive.home.with_name("alone")
    shutil.copytree(site.folder, home / "tls")
    shutil.copy(home / "tls" / "clients" / "DEVICE.pem", home / "tls" / "server.pem")
    shutil.copy(home / "tls" / "clients" / "DEVICE.key", home / "tls" / "server.key")
    alone = {"tls.plain": "false", "tls.warn_days": "3650", "serve.listeners": "1"}
    with opened(home, **alone) as other:
        assert other.archive.port == other.port
        at = ["127.0.0.1", str(other.port)]
        assert run(peer_tool("echoscu"), *other.shown, *at).code == 0
        log = home.with_suffix(".log")
        assert until(lambda: "tls-ends-soon what=tls.certificate" in log.read_text())
        known_by_its_certificate(other, peer_tool("echoscu"))


def known_by_its_certificate(site: Site, echoscu: str) -> None:
    """A device that a certificate is bound to comes in with it, and with no other of the same CA."""
    site.archive.pacs("tls", "client", "OTHER")
    bound = site.folder / "clients" / "DEVICE.pem"
    site.archive.pacs("subscriber", "add", "clinic", "--right", "query")
    site.archive.pacs(
        *("peer", "add", "DEVICE", "192.0.2.1", "104", "--subscriber", "clinic"),
        *("--certificate", str(bound)),
    )
    at = ["-aet", "DEVICE", "127.0.0.1", str(site.port)]
    others = [one.replace("DEVICE", "OTHER") for one in site.shown]
    assert until(lambda: run(echoscu, *others, *at).code != 0)  # there is one listener
    assert run(echoscu, *site.shown, *at).code == 0
    assert run(echoscu, *site.shown, *at[2:]).code != 0  # under another AE title
    known_by_its_user(site, [echoscu, *others, "-aet", "LATER", "127.0.0.1", str(site.port)])
    (refused, *_) = site.audited("association-refused")
    assert refused["calling_ae_title"] == "DEVICE"


def known_by_its_user(site: Site, later: list[str]) -> None:
    """A user queries and retrieves over TLS from a device that nobody named; ``later`` is one named last."""
    site.archive.pacs("subscriber", "grant", "clinic", "register", "receive")
    added = subprocess.run(
        [*PACS, "subscriber", "user", "add", "clinic", "reader"],
        env=site.archive.environment,
        input="correct horse\n",
        text=True,
        check=False,
    )
    assert added.returncode == 0
    device = ("peer", "add", "LATER", "192.0.2.1", "104", "--subscriber", "clinic")
    site.archive.pacs(*device, "--certificate", str(site.folder / "clients" / "OTHER.pem"))
    assert until(lambda: run(*later).code == 0), "known last, so the user is known too"
    assert statuses_of(site, "wrong horse") is None
    stored, found, retrieved = statuses_of(site, "correct horse") or (-1, -1, -1)
    assert (stored, found, retrieved) == (0, 0, 0)


def statuses_of(site: Site, passcode: str) -> tuple[int, int, int] | None:
    """Store, find and retrieve a study as a user; ``None`` where the association is rejected."""
    identity = UserIdentityNegotiation()
    identity.user_identity_type = 2
    identity.primary_field = b"reader"
    identity.secondary_field = passcode.encode()
    entity = AE(ae_title="ANYWHERE")
    for uid in (FIND_MODEL, STUDY_ROOT + GET, CT):
        entity.add_requested_context(uid, [IMPLICIT_LITTLE, EXPLICIT_LITTLE])
    taken: list[str] = []

    def take(event: evt.Event) -> int:
        taken.append(event.dataset.SOPInstanceUID)
        return 0

    association = entity.associate(
        *("127.0.0.1", site.port),
        ext_neg=[identity, build_role(CT, scu_role=True, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, take)],
        tls_args=(site.context(), "localhost"),
    )
    if not association.is_established:
        return None
    try:
        image = data_set("1.2.61", "1.2.61.1", "1.2.61.1.1", PatientID="P61")
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = IMPLICIT_LITTLE
        stored = association.send_c_store(image).Status
        key = identifier("STUDY", StudyInstanceUID="1.2.61")
        answers_found = list(association.send_c_find(key, FIND_MODEL))
        got = list(association.send_c_get(key, STUDY_ROOT + GET))
    finally:
        association.release()
    assert [one.StudyInstanceUID for _, one in answers_found if one] == ["1.2.61"]
    assert taken == ["1.2.61.1.1"]
    return stored, answers_found[-1][0].Status, got[-1][0].Status
