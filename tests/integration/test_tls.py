"""TLS against whatever comes: strangers, the silent, the garbled; and both ways at once. PS3.15 Section B.12."""

import os
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from config.settings import Tls
from pacs.association import tls as tls_module
from pacs.association.tls import ServerTls, client_context, server_context
from pacs.core.errors import SettingsInvalid
from tests.association_fakes import (
    CT,
    ECHO,
    EXPLICIT,
    RELEASE_RQ,
    Running,
    associate_rq,
    command,
    p_data,
    read_pdu,
    serving,
    store_class,
    until,
)
from tests.certificates import Authority, Issued, client, settings

ECHO_RQ = p_data((1, 3, command(0x0030, AffectedSOPClassUID=ECHO)))
LAPSED = timedelta(days=-1)
ASSOCIATE_AC = 2
RELEASE_RP = 6


class World:
    """Who is there: our CA, us, a device, and those who are not trusted."""

    def __init__(self, folder: Path) -> None:
        self.home = folder
        self.ca, self.foreign = Authority(folder / "ca"), Authority(folder / "foreign")
        self.us, self.device = self.ca.issue("us"), self.ca.issue("device")
        self.expired = self.ca.issue("expired", until=LAPSED)
        self.stranger = self.foreign.issue("stranger")

    def settings(self, *revoked: Path, **more: object) -> Tls:
        """What the server is set to."""
        return settings(self.us, self.ca, *revoked, **more)

    @contextmanager
    def serving(self, *revoked: Path, **more: object) -> Iterator[Running]:
        """Serve over TLS."""
        bounds = {key: more.pop(key) for key in list(more) if key.endswith("_s")}
        tls = ServerTls(self.settings(*revoked, **more), self.home)
        with serving(store_class(), tls=tls, **bounds) as running:
            yield running

    def call(
        self, running: Running, shown: Issued | None = None, context: ssl.SSLContext | None = None
    ) -> ssl.SSLSocket:
        """Call as a device would."""
        made = context or client(self.ca, shown or self.device)
        return made.wrap_socket(running.connect(), server_hostname="localhost")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("tls"))


def echoed(connection: socket.socket) -> bool:
    connection.sendall(associate_rq())
    if read_pdu(connection)[:1] != b"\x02":
        return False
    connection.sendall(ECHO_RQ)
    answered = read_pdu(connection)[:1] == b"\x04"
    connection.sendall(RELEASE_RQ)
    return answered and read_pdu(connection)[0] == RELEASE_RP


def alert(connection: ssl.SSLSocket) -> str:
    """Say which alert ends it; with TLS 1.3 it comes after the client's own handshake is done."""
    with connection, pytest.raises(ssl.SSLError) as raised:
        connection.sendall(associate_rq())
        while connection.recv(1_000):
            continue
    return str(raised.value.reason)


def causes(running: Running) -> list[object]:
    return [one["cause"] for one in running.audit.named("tls-refused")]


def outdated(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.minimum_version = context.maximum_version = version
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_gate_is_told_who_came_how(world: World, version: ssl.TLSVersion) -> None:
    context = client(world.ca, world.device)
    context.minimum_version = context.maximum_version = version
    with world.serving() as running:
        with world.call(running, context=context) as connection:
            assert echoed(connection)
        (candidate,) = running.gate.candidates
        assert candidate.tls
        assert candidate.certificate is not None
        assert candidate.certificate.fingerprint == world.device.fingerprint
        assert "CN=device" in candidate.certificate.subject
        assert candidate.certificate.not_after_utc == world.device.x509.not_valid_after_utc
        assert causes(running) == []


def test_a_session_that_is_resumed_still_shows_its_certificate(world: World) -> None:
    context = client(world.ca, world.device)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with world.serving() as running:
        with world.call(running, context=context) as first:
            assert echoed(first)
            session = first.session
        again = context.wrap_socket(running.connect(), server_hostname="localhost", session=session)
        with again:
            assert again.session_reused
            assert echoed(again)
        shown = [one.certificate and one.certificate.fingerprint for one in running.gate.candidates]
        assert shown == [world.device.fingerprint] * 2


def test_a_session_is_not_resumed_once_its_certificate_is_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Later(datetime):
        """Beyond what the certificate says; the library, which resumes, does not look."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Later":
            return super().now(tz) + timedelta(days=3_650)

    context = client(world.ca, world.device)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with world.serving() as running:
        with world.call(running, context=context) as first:
            assert echoed(first)
            session = first.session
        monkeypatch.setattr(tls_module, "datetime", Later)
        with context.wrap_socket(
            running.connect(), server_hostname="localhost", session=session
        ) as again:
            assert again.session_reused
            assert again.recv(1) == b""
        assert until(lambda: causes(running) == ["certificate has expired"])
        assert len(running.gate.candidates) == 1


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("who", "told", "cause"),
    [
        ("expired", "EXPIRED", "certificate has expired"),
        ("stranger", "UNKNOWN_CA", "unable to get local issuer certificate"),
        ("nobody", "", "peer did not return a certificate"),
        ("revoked", "REVOKED", "certificate revoked"),
    ],
)
def test_whose_certificate_is_no_good_gets_an_alert_and_its_cause_is_on_record(
    world: World, version: ssl.TLSVersion, who: str, told: str, cause: str
) -> None:
    shown = {"expired": world.expired, "stranger": world.stranger, "revoked": world.device}.get(who)
    revoked = [world.ca.revoke(world.device.x509)] if who == "revoked" else []
    context = client(world.ca, shown)
    context.minimum_version = context.maximum_version = version
    with world.serving(*revoked) as running:
        with running.connect() as plain:
            try:
                connection = context.wrap_socket(plain, server_hostname="localhost")
            except ssl.SSLError as refused:  # TLS 1.2: in the middle of the handshake
                said = str(refused.reason)
            else:
                said = alert(connection)
        assert "ALERT" in said
        assert told in said
        assert until(lambda: causes(running) == [cause])
        (noted,) = running.audit.named("tls-refused")
        assert noted["address"] == "127.0.0.1"
        assert running.gate.candidates == []


def test_a_crl_of_its_own_ca_lets_everybody_else_in(world: World) -> None:
    other = world.ca.issue("other")
    with (
        world.serving(world.ca.revoke(world.device.x509)) as running,
        world.call(running, other) as connection,
    ):
        assert echoed(connection)


def test_a_file_of_what_is_revoked_makes_nobody_trusted(tmp_path: Path) -> None:
    world, other = World(tmp_path), Authority(tmp_path / "other")
    mixed = world.ca.revoke(world.device.x509)
    with mixed.open("ab") as file:
        file.write(other.trusted.read_bytes() + other.revoke().read_bytes())
    for role in (server_context, client_context):
        with pytest.raises(SettingsInvalid, match=r"tls\.revoked"):
            role(settings(world.ca.issue("us"), world.ca, mixed), tmp_path)


def test_an_outdated_crl_lets_nobody_in(tmp_path: Path) -> None:
    world = World(tmp_path)
    with world.serving(world.ca.revoke(until=LAPSED)) as running:
        alert(world.call(running))
        assert until(lambda: causes(running) == ["CRL has expired"])


def test_a_ca_between_that_was_revoked_takes_its_devices_with_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    between = Authority(tmp_path / "between", world.ca.ca.create_child_ca())
    device = between.issue("behind")
    own = between.revoke()
    with (
        world.serving(world.ca.revoke(), own) as running,
        world.call(running, device) as connection,
    ):
        assert echoed(connection)
    middle = between.issue("look").x509.issuer
    chain = [
        one
        for one in x509.load_pem_x509_certificates(device.certificate.read_bytes())
        if one.subject == middle
    ]
    with world.serving(world.ca.revoke(*chain), own) as running:
        assert "REVOKED" in alert(world.call(running, device))
        assert until(lambda: causes(running) == ["certificate revoked"])


@pytest.mark.parametrize("wanted", ["optional", "none"])
def test_a_peer_without_a_certificate_may_come_where_the_settings_say_so(
    world: World, wanted: str
) -> None:
    with (
        world.serving(client_certificates=wanted) as running,
        world.call(running, context=client(world.ca)) as connection,
    ):
        assert echoed(connection)
        (candidate,) = running.gate.candidates
        assert (candidate.tls, candidate.certificate) == (True, None)


def test_a_certificate_that_need_not_be_shown_must_be_good_all_the_same(world: World) -> None:
    with world.serving(client_certificates="optional") as running:
        assert "EXPIRED" in alert(world.call(running, world.expired))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_versions_before_1_2_are_refused(world: World, version: ssl.TLSVersion) -> None:
    with world.serving() as running:
        with (
            running.connect() as plain,
            pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"),
        ):
            outdated(version).wrap_socket(plain)
        assert until(lambda: causes(running) == ["unsupported protocol"])


def test_version_1_2_is_refused_where_1_3_is_asked_for(world: World) -> None:
    context = client(world.ca, world.device)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        world.serving(minimum_version="1.3") as running,
        running.connect() as plain,
        pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"),
    ):
        context.wrap_socket(plain, server_hostname="localhost")


@pytest.mark.parametrize(
    "suites",
    [
        "AES128-SHA",
        "ECDHE-ECDSA-AES128-SHA256",
        "DHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ],
)
def test_suites_the_profile_does_not_name_are_refused(world: World, suites: str) -> None:
    context = client(world.ca, world.device)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{suites}:@SECLEVEL=0")
    with world.serving() as running:
        with running.connect() as plain, pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
            context.wrap_socket(plain, server_hostname="localhost")
        assert until(lambda: causes(running) == ["no shared cipher"])


# --- what is no TLS -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        associate_rq(),
        b"\xde\xad\xbe\xef" * 250,
        b"GET / HTTP/1.0\r\n\r\n",
        b"\x16\x03\x01\xff\xff" + bytes(70_000),
    ],
    ids=["plain", "garbage", "http", "record"],
)
def test_what_is_no_handshake_is_refused_and_on_record(world: World, sent: bytes) -> None:
    with world.serving() as running:
        with running.connect() as connection:
            connection.sendall(sent)
            with suppress(ConnectionResetError):  # where some of it was not read any more
                while connection.recv(1_000):
                    continue  # an alert, perhaps; then the end
        assert until(lambda: len(causes(running)) == 1)
        with world.call(running) as connection:
            assert echoed(connection)


def test_who_keeps_talking_after_a_refusal_is_cut_off(world: World) -> None:
    with world.serving(artim_timeout_s=0.5) as running, running.connect() as connection:
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(100_000):
                connection.sendall(bytes(1_000))
                time.sleep(0.001)
        assert len(causes(running)) == 1


def test_a_tls_peer_at_the_plain_port_gets_an_end(world: World) -> None:
    with serving() as running, running.connect() as plain, pytest.raises((ssl.SSLError, OSError)):
        client(world.ca).wrap_socket(plain, server_hostname="localhost")


def test_the_silent_are_cut_off_and_keep_nobody_waiting(world: World) -> None:
    artim_s = 2.0
    with world.serving(artim_timeout_s=artim_s) as running:
        begun_s = time.monotonic()
        silent = [running.connect() for _ in range(40)]
        half = [running.connect() for _ in range(10)]
        for one in half:
            one.sendall(b"\x16\x03\x01\x02\x00\x01")  # a ClientHello begins
        for _ in range(3):
            with world.call(running) as connection:
                assert echoed(connection)
        still_open = running.server.open_connections
        while_they_waited_s = time.monotonic() - begun_s
        assert still_open >= len(silent) or while_they_waited_s > artim_s
        for one in (*silent, *half):
            assert one.recv(1) == b""
            one.close()
        assert until(lambda: running.server.open_connections == 0)
        assert causes(running) == []


@pytest.mark.parametrize("cut", [3, 40, 600])
def test_a_connection_cut_within_a_record_ends_its_association_only(world: World, cut: int) -> None:
    with world.serving() as running:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = client(world.ca, world.device).wrap_bio(
            incoming, outgoing, server_hostname="localhost"
        )
        with running.connect() as plain:
            handshake(plain, session, incoming, outgoing)
            session.write(associate_rq((CT, [EXPLICIT])))
            plain.sendall(outgoing.read())
            incoming.write(plain.recv(65_536))
            assert session.read(1_000)[:1] == b"\x02"
            session.write(bytes(10_000))
            plain.sendall(outgoing.read()[:cut])
        assert until(lambda: running.server.open_associations == 0)
        with world.call(running) as connection:
            assert echoed(connection)


def handshake(
    plain: socket.socket, session: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
) -> None:
    while True:
        try:
            session.do_handshake()
        except ssl.SSLWantReadError:
            plain.sendall(outgoing.read())
            incoming.write(plain.recv(65_536))
        else:
            plain.sendall(outgoing.read())
            return


def test_a_record_that_was_tampered_with_ends_the_association(world: World) -> None:
    with world.serving() as running, running.connect() as plain:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = client(world.ca, world.device).wrap_bio(
            incoming, outgoing, server_hostname="localhost"
        )
        handshake(plain, session, incoming, outgoing)
        session.write(associate_rq())
        record = bytearray(outgoing.read())
        record[-1] ^= 1
        plain.sendall(record)
        answer = b"".join(iter(lambda: plain.recv(1_000), b""))
        incoming.write(answer)
        with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
            session.read(1_000)
        assert until(lambda: running.server.open_connections == 0)
        assert running.gate.candidates == []


# --- reading and writing --------------------------------------------------------------------


def test_everything_that_came_in_one_piece_is_answered_without_another_byte(world: World) -> None:
    """What TLS has decrypted already shows in no poll."""
    with world.serving() as running, world.call(running) as connection:
        connection.sendall(associate_rq())
        assert read_pdu(connection)[0] == ASSOCIATE_AC
        connection.sendall(ECHO_RQ * 12)
        assert [read_pdu(connection)[0] for _ in range(12)] == [4] * 12


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_objects_of_any_length_arrive_whole(world: World, version: ssl.TLSVersion) -> None:
    """Lengths around those of records and buffers: nothing is left lying."""
    context = client(world.ca, world.device)
    context.minimum_version = context.maximum_version = version
    sizes = [1, 16_383, 16_384, 16_385, 131_072, 262_143, 262_144, 262_145, 700_001]
    with world.serving() as running, world.call(running, context=context) as connection:
        connection.sendall(associate_rq((CT, [EXPLICIT])))
        assert read_pdu(connection)[0] == ASSOCIATE_AC
        contents = [os.urandom(size) for size in sizes]
        for number, content in enumerate(contents, 1):
            asked = command(
                1,
                number,
                data=True,
                AffectedSOPClassUID=CT,
                AffectedSOPInstanceUID=f"1.{number}",
                Priority=0,
            )
            pieces = [content[at : at + 100_000] for at in range(0, len(content), 100_000)]
            fragments = [p_data((1, 0, one)) for one in pieces[:-1]]
            connection.sendall(
                p_data((1, 3, asked)) + b"".join(fragments) + p_data((1, 2, pieces[-1]))
            )
            assert read_pdu(connection)[0] == 4
        assert [bytes(one.content) for one in running.spool.all] == contents


def test_renegotiation_is_refused(world: World, peer_tool: Callable[[str], str]) -> None:
    """TLS 1.2 only; the peer is told so, and nothing of it is acted on."""
    tool = peer_tool("openssl")
    with world.serving() as running:
        command_line = [tool, "s_client", "-tls1_2", "-connect", f"127.0.0.1:{running.port}"]
        shown = ["-cert", str(world.device.certificate), "-key", str(world.device.key)]
        done = subprocess.run(
            [*command_line, *shown], input=b"R\n", capture_output=True, timeout=60, check=False
        )
        assert b"RENEGOTIATING" in done.stdout + done.stderr
        assert b"no renegotiation" in done.stdout + done.stderr
        assert causes(running) == []


# --- files ----------------------------------------------------------------------------------


def test_a_reload_is_for_handshakes_to_come(world: World, tmp_path: Path) -> None:
    home = World(tmp_path)
    tls = ServerTls(home.settings(), tmp_path)
    with serving(tls=tls) as running:
        with home.call(running) as before:
            before.sendall(associate_rq())
            assert read_pdu(before)[0] == ASSOCIATE_AC
            renewed = home.ca.issue("us")
            assert tls.reload()
            with home.call(running) as after:
                shown = after.getpeercert(binary_form=True)
                assert shown == renewed.x509.public_bytes(Encoding.DER)
                assert echoed(after)
            before.sendall(ECHO_RQ)
            assert read_pdu(before)[0] == 4
        renewed.certificate.write_text("rubbish")
        assert not tls.reload()
        with home.call(running) as connection:
            assert connection.getpeercert(binary_form=True) == shown
            assert echoed(connection)
