"""What tests of the audit trail need: trails, a reading of PS3.15 A.5.1 as a checker, collectors."""

import base64
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import trustme

from config.settings import Audit
from pacs.core.caller import Caller, SubscriberName, Visibility
from pacs.core.identifiers import AETitle
from pacs.observe.audit import FileAuditTrail
from pacs.observe.audit.message import Source
from pacs.observe.audit.verify import Finding, verify
from tests.archive import free_port

PATIENCE_S = 60.0
SOURCE = Source(source_id="PACS", site_id="HOSPITAL", ae_title="PACS", host="archive.example")
MODALITY = Caller(
    subscriber=SubscriberName("radiology"),
    rights=frozenset(),
    visibility=Visibility(),
    ae_title=AETitle("MODALITY"),
    address="192.0.2.7",
    association="0198c0de",
)
CT = "1.2.840.10008.5.1.4.1.1.2"


@contextmanager
def trail(home: Path, settings: Audit | None = None) -> Iterator[FileAuditTrail]:
    one = FileAuditTrail(home, settings or Audit())
    try:
        yield one
    finally:
        one.close()


def stored(one: FileAuditTrail, count: int, study: str = "1.2.3") -> None:
    """Put so many C-STOREs of a study on record."""
    for _ in range(count):
        one.record(
            "C-STORE", MODALITY, sop_class_uid=CT, outcome="success", status="0000", study=study
        )


def findings(one: FileAuditTrail) -> list[Finding]:
    return list(verify(one.folder, one.keep)[1])


def damages(one: FileAuditTrail) -> list[Finding]:
    return [found for found in findings(one) if found.damage]


def until(true: Callable[[], object], patience_s: float = PATIENCE_S) -> bool:
    limit_s = time.monotonic() + patience_s
    while not true():
        if time.monotonic() > limit_s:
            return False
        time.sleep(0.02)
    return True


# --- PS3.15 A.5.1.1, the schema ----------------------------------------------------------

_CODED = ({"csd-code", "codeSystemName", "originalText"}, {"displayName"}, "")
# Element → attributes it must have, attributes it may have, children in order (? one or none, * any, + one or more).
_SCHEMA: dict[str, tuple[set[str], set[str], str]] = {
    "AuditMessage": (
        set(),
        set(),
        "EventIdentification ActiveParticipant+ AuditSourceIdentification"
        " ParticipantObjectIdentification*",
    ),
    "EventIdentification": (
        {"EventDateTime", "EventOutcomeIndicator"},
        {"EventActionCode"},
        "EventID EventTypeCode* EventOutcomeDescription?",
    ),
    "EventID": _CODED,
    "EventTypeCode": _CODED,
    "EventOutcomeDescription": (set(), set(), ""),
    "ActiveParticipant": (
        {"UserID", "UserIsRequestor"},
        {
            "AlternativeUserID",
            "UserName",
            "NetworkAccessPointID",
            "NetworkAccessPointTypeCode",
        },
        "RoleIDCode* MediaIdentifier?",
    ),
    "RoleIDCode": _CODED,
    "MediaIdentifier": (set(), set(), "MediaType"),
    "MediaType": _CODED,
    "AuditSourceIdentification": (
        {"AuditSourceID"},
        {"AuditEnterpriseSiteID"},
        "AuditSourceTypeCode*",
    ),
    "AuditSourceTypeCode": (
        {"csd-code"},
        {"codeSystemName", "originalText", "displayName"},
        "",
    ),
    "ParticipantObjectIdentification": (
        {"ParticipantObjectID"},
        {
            "ParticipantObjectTypeCode",
            "ParticipantObjectTypeCodeRole",
            "ParticipantObjectDataLifeCycle",
            "ParticipantObjectSensitivity",
        },
        "ParticipantObjectIDTypeCode ParticipantObjectName|ParticipantObjectQuery"
        " ParticipantObjectDetail* ParticipantObjectDescription*",
    ),
    "ParticipantObjectIDTypeCode": _CODED,
    "ParticipantObjectName": (set(), set(), ""),
    "ParticipantObjectQuery": (set(), set(), ""),
    "ParticipantObjectDetail": ({"type", "value"}, set(), ""),
    "ParticipantObjectDescription": (set(), set(), "MPPS* Accession* SOPClass*"),
    "SOPClass": ({"NumberOfInstances"}, {"UID"}, "Instance*"),
}
_VALUES = {
    "EventActionCode": set("CRUDE"),
    "EventOutcomeIndicator": {"0", "4", "8", "12"},
    "UserIsRequestor": {"true", "false"},
    "NetworkAccessPointTypeCode": set("12345"),
    "ParticipantObjectTypeCode": set("1234"),
    "ParticipantObjectTypeCodeRole": {str(one) for one in range(1, 27)},
    "ParticipantObjectDataLifeCycle": {str(one) for one in range(1, 16)},
}


def checked(xml: bytes) -> ET.Element:
    """Parse a message and hold it to the schema."""
    root = ET.fromstring(xml)
    assert root.tag == "AuditMessage"
    _check(root)
    assert len([one for one in root if one.get("UserIsRequestor") == "true"]) <= 1
    return root


def _check(element: ET.Element) -> None:
    must, may, children = _SCHEMA[element.tag]
    assert must <= set(element.attrib) <= must | may, (element.tag, element.attrib)
    for name, value in element.attrib.items():
        assert value in _VALUES.get(name, {value}), (name, value)
    names = [child.tag for child in element]
    for one in children.split():
        allowed, rule = one.rstrip("?*+").split("|"), one[-1]
        found = 0
        while names and names[0] in allowed:
            names.pop(0)
            found += 1
        assert found <= 1 or rule in "*+", (element.tag, one)
        assert found >= 1 or rule in "?*", (element.tag, one)
    assert names == [], (element.tag, names)
    for child in element:
        _check(child)


def details(root: ET.Element) -> dict[str, str]:
    """The name and value of every ParticipantObjectDetail."""
    return {
        str(one.get("type")): base64.b64decode(str(one.get("value"))).decode()
        for one in root.iter("ParticipantObjectDetail")
    }


def event_of(root: ET.Element) -> tuple[str, list[str]]:
    """EventID's and EventTypeCode's meanings."""
    (event,) = (str(one.get("displayName")) for one in root.iter("EventID"))
    return event, [str(one.get("displayName")) for one in root.iter("EventTypeCode")]


# --- collectors ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Papers:
    """Files of a certificate authority, of a collector and of who sends to it."""

    ca: Path
    certificate: Path
    key: Path
    client: Path


def papers(folder: Path) -> Papers:
    ca = trustme.CA()
    collector, client = ca.issue_cert("localhost", "127.0.0.1"), ca.issue_cert("archive.example")
    made = Papers(
        ca=folder / "ca.pem",
        certificate=folder / "collector.pem",
        key=folder / "collector.key",
        client=folder / "archive.pem",
    )
    ca.cert_pem.write_to_path(made.ca)
    made.certificate.write_bytes(b"".join(one.bytes() for one in collector.cert_chain_pems))
    collector.private_key_pem.write_to_path(made.key)
    client.private_key_and_cert_chain_pem.write_to_path(made.client)
    return made


def sending(port: int, with_papers: Papers, **further: object) -> Audit:
    """Settings to send there, in a hurry."""
    given: dict[str, object] = {
        "collector_host": "127.0.0.1",
        "collector_port": port,
        "collector_ca": str(with_papers.ca),
        "certificate": str(with_papers.client),
        "confirm_s": 0.3,
        "retry_first_s": 0.05,
        "retry_max_s": 0.2,
        "fold_quiet_s": 0.2,
        "timeout_s": 20.0,
        **further,
    }
    return Audit(**given)  # type: ignore[arg-type]  # values of every type


class Rsyslog:
    """A real rsyslog that writes what it gets over TLS to a file, one message a line."""

    def __init__(self, tool: str, folder: Path, with_papers: Papers) -> None:
        self.output = folder / "received"
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._tool = tool
        (folder / "rsyslog.conf").write_text(
            f'global(workDirectory="{folder}" maxMessageSize="64k"\n'
            f' DefaultNetstreamDriver="gtls" DefaultNetstreamDriverCAFile="{with_papers.ca}"\n'
            f' DefaultNetstreamDriverCertFile="{with_papers.certificate}"\n'
            f' DefaultNetstreamDriverKeyFile="{with_papers.key}")\n'
            'module(load="imtcp" StreamDriver.Name="gtls" StreamDriver.Mode="1"\n'
            ' StreamDriver.AuthMode="x509/certvalid")\n'
            f'input(type="imtcp" port="{self.port}" address="127.0.0.1")\n'
            'template(name="raw" type="string" string="%rawmsg%\\n")\n'
            f'action(type="omfile" file="{self.output}" template="raw")\n'
        )

    def start(self) -> None:
        command = [self._tool, "-n", "-f", str(self._folder / "rsyslog.conf")]
        with (self._folder / "rsyslog.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "-i", str(self._folder / "pid")], stdout=log, stderr=log
            )
        assert until(lambda: _answers(self.port)), "rsyslog does not listen"

    def stop(self, *, kill: bool = False) -> None:
        if self._process is not None:
            (self._process.kill if kill else self._process.terminate)()
            self._process.wait(PATIENCE_S)
            self._process = None

    def messages(self) -> list[ET.Element]:
        """Every whole message, checked."""
        if not self.output.exists():
            return []
        lines = self.output.read_text(encoding="utf-8").splitlines()
        return [
            checked(line[line.index("<?xml") :].encode())
            for line in lines
            if line.endswith("</AuditMessage>")
        ]


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


@contextmanager
def never_reading(with_papers: Papers) -> Iterator[int]:
    """A collector that shakes hands and never reads a byte; gives its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(with_papers.certificate, with_papers.key)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        listening.bind(("127.0.0.1", 0))
        listening.listen(8)
        held: list[ssl.SSLSocket] = []

        def hold() -> None:
            with suppress(OSError):
                while True:
                    held.append(context.wrap_socket(listening.accept()[0], server_side=True))

        import threading

        thread = threading.Thread(target=hold, daemon=True)
        thread.start()
        try:
            yield int(listening.getsockname()[1])
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE_S)
            for one in held:
                one.close()
