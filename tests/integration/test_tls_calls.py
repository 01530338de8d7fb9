"""Peers that are called over TLS: whom we believe, what we show, and that no peer holds us up."""

import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from config.settings import Association, Tls
from pacs.association.tls import CALLS, ClientTls, ServerTls
from pacs.association.upper_layer import ESTABLISHED, UpperLayer
from pacs.core.errors import PeerUnreachable, SettingsInvalid
from pacs.core.identifiers import AETitle, SOPClassUID, SOPInstanceUID, TransferSyntaxUID
from pacs.core.records import Payload, Peer, SendOutcome
from scu.echo import echo
from scu.store import StoreSCU
from tests.association_fakes import CT, EXPLICIT, RELEASE_RQ, read_pdu, serving, store_class
from tests.certificates import Authority, settings

BOUNDS = Association(dimse_timeout_s=60, artim_timeout_s=60)


class World:
    """Two sites whose certificates come from one CA, and a CA nobody trusts."""

    def __init__(self, folder: Path) -> None:
        self.home = folder
        self.ca, self.foreign = Authority(folder / "ca"), Authority(folder / "foreign")
        self.us, self.peer = self.ca.issue("us"), self.ca.issue("peer")

    def server(self, **more: object) -> ServerTls:
        """The peer."""
        return ServerTls(settings(self.peer, self.ca, **more), self.home)

    def set_up(self, *revoked: Path, trusting: Authority | None = None, shown: bool = True) -> Tls:
        """Ourselves."""
        tls = settings(self.us if shown else None, trusting or self.ca, *revoked)
        CALLS.set_up(tls, self.home)
        return tls


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def at(port: int, fingerprint: str = "") -> Peer:
    return Peer(
        ae_title=AETitle("PACS"),
        host="127.0.0.1",
        port=port,
        tls=True,
        certificate_fingerprint=fingerprint,
    )


def asked(peer: Peer, **bounds: float) -> int:
    return echo(
        peer,
        ae_title="US",
        bounds=Association(dimse_timeout_s=60, **{"artim_timeout_s": 60, **bounds}),
    )


def test_a_peer_is_called_with_our_certificate(world: World) -> None:
    world.set_up()
    with serving(tls=world.server()) as running:
        assert asked(at(running.port)) == 0
        assert asked(at(running.port, world.peer.fingerprint.upper())) == 0
        shown = running.gate.candidates[0].certificate
        assert shown is not None
        assert shown.fingerprint == world.us.fingerprint


def test_another_certificate_than_the_one_entered_is_not_believed(world: World) -> None:
    world.set_up()
    with serving(tls=world.server()) as running:
        with pytest.raises(PeerUnreachable, match="TLS: the peer's certificate is not the one"):
            asked(at(running.port, world.us.fingerprint))
        assert running.gate.candidates == []


def test_a_foreign_peer_is_not_believed_and_gets_nothing(world: World) -> None:
    world.set_up(trusting=world.foreign)
    with serving(tls=world.server()) as running:
        with pytest.raises(PeerUnreachable, match="TLS: self-signed certificate"):
            asked(at(running.port))
        assert running.gate.candidates == []


def test_a_revoked_peer_is_not_believed(world: World) -> None:
    world.set_up(world.ca.revoke(world.peer.x509))
    with serving(tls=world.server()) as running, pytest.raises(PeerUnreachable, match="revoked"):
        asked(at(running.port))


def test_that_a_peer_wants_a_certificate_is_said(world: World) -> None:
    """With TLS 1.3 it is heard only once the request is on its way."""
    world.set_up(shown=False)
    with (
        serving(tls=world.server()) as running,
        pytest.raises(PeerUnreachable, match=r"TLS: .*certificate required"),
    ):
        asked(at(running.port))


def test_a_plain_peer_is_not_called_plainly(world: World) -> None:
    world.set_up()
    with serving() as running:
        with pytest.raises(PeerUnreachable, match="TLS: "):
            asked(at(running.port))
        assert running.gate.candidates == []


def test_without_files_nothing_is_called(world: World) -> None:
    CALLS.set_up(Tls(), world.home)
    with (
        serving(tls=world.server()) as running,
        pytest.raises(PeerUnreachable, match=r"tls\.certificate: .*No such file"),
    ):
        asked(at(running.port))


@contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_a_peer_that_says_nothing_does_not_hold_us_up(world: World) -> None:
    world.set_up()
    with listening() as silent, pytest.raises(PeerUnreachable, match="TLS: no handshake in time"):
        asked(at(silent.getsockname()[1]), artim_timeout_s=0.3)


def hang_up(listener: socket.socket) -> None:
    listener.accept()[0].close()


def test_a_peer_that_hangs_up_is_unreachable(world: World) -> None:
    world.set_up()
    with listening() as listener:
        threading.Thread(target=hang_up, args=(listener,)).start()
        with pytest.raises(PeerUnreachable, match="TLS: "):
            asked(at(listener.getsockname()[1]))


def test_files_that_changed_are_read_at_the_next_call(world: World) -> None:
    world.set_up()
    with serving(tls=world.server()) as running:
        assert asked(at(running.port)) == 0
        world.us = world.ca.issue("us")
        assert asked(at(running.port)) == 0
        world.us.certificate.write_text("rubbish")
        assert asked(at(running.port)) == 0  # with what was there before
        shown = [one.certificate and one.certificate.fingerprint for one in running.gate.candidates]
    assert shown[1:] == [world.us.fingerprint] * 2
    assert shown[0] != shown[1]


@pytest.mark.parametrize("fault", ["key", "encrypted", "trusted", "crl", "certificate"])
def test_what_cannot_be_used_is_named(world: World, fault: str) -> None:
    files = settings(world.peer, world.ca)
    crl = world.home / "crl.pem"
    crl.write_text("rubbish")
    if fault == "encrypted":
        from cryptography.hazmat.primitives import serialization as form

        key = form.load_pem_private_key(world.peer.key.read_bytes(), None)
        hidden = form.BestAvailableEncryption(b"secret")
        world.peer.key.write_bytes(
            key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, hidden)
        )
    named, changed = {
        "key": ("tls.key", settings(world.peer, world.ca)),
        "encrypted": ("tls.key", files),
        "trusted": ("tls.trusted", files),
        "crl": ("tls.revoked", settings(world.peer, world.ca, crl)),
        "certificate": ("tls.certificate", files),
    }[fault]
    if fault == "key":
        world.peer.key.write_bytes(world.us.key.read_bytes())
    elif fault == "trusted":
        world.ca.trusted.unlink()
    elif fault == "certificate":
        world.peer.certificate.unlink()
    with pytest.raises(SettingsInvalid, match=named):
        ServerTls(changed, world.home)


# --- sending ----------------------------------------------------------------------------------


def test_instances_of_any_length_arrive_whole(world: World) -> None:
    world.set_up()
    contents = [os.urandom(size) for size in (1, 131_072, 300_001, 999_999)]
    payloads = []
    for number, content in enumerate(contents, 1):
        (world.home / str(number)).write_bytes(content)
        payloads.append(
            Payload(
                sop_class_uid=SOPClassUID(CT),
                sop_instance_uid=SOPInstanceUID(f"1.{number}"),
                transfer_syntax_uid=TransferSyntaxUID(EXPLICIT),
                path=str(world.home / str(number)),
                offset=0,
            )
        )
    with serving(store_class(), tls=world.server()) as running:
        way = StoreSCU(ae_title="US", bounds=BOUNDS)
        with way.open(at(running.port), [(SOPClassUID(CT), (TransferSyntaxUID(EXPLICIT),))]) as to:
            assert [to.send(one, None) for one in payloads] == [SendOutcome.SUCCESS] * 4
        assert [bytes(one.content) for one in running.spool.all] == contents


@contextmanager
def joined(world: World, **bounds: float) -> Iterator[tuple[UpperLayer, ssl.SSLSocket]]:
    """An association of ours over TLS as it is once established, and the peer's end of it."""
    tls = world.set_up()
    calls = ClientTls()
    calls.set_up(tls, world.home)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(world.peer.certificate, world.peer.key)
    accepted: list[ssl.SSLSocket] = []
    with listening() as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        theirs.settimeout(60)
        other = threading.Thread(
            target=lambda: accepted.append(context.wrap_socket(theirs, server_side=True))
        )
        other.start()
        connection = calls.connect(ours)
        connection.secure(60.0)
        other.join()
    upper_layer = UpperLayer(
        connection, requestor=True, bounds=Association(**{"network_timeout_s": 0.5, **bounds})
    )
    upper_layer.state = ESTABLISHED
    try:
        yield upper_layer, accepted[0]
    finally:
        upper_layer._close()
        accepted[0].close()


def test_a_peer_that_reads_nothing_is_cut_off_and_little_is_held_for_it(world: World) -> None:
    with joined(world) as (upper_layer, _):
        connection = upper_layer._connection
        with pytest.raises(PeerUnreachable, match="stopped reading"):
            upper_layer.send([bytes(1 << 20)] * 64)
        assert 0 < connection.unsent_bytes < 300_000


def test_what_ends_the_association_while_the_peer_reads_nothing_is_seen_at_once(
    world: World,
) -> None:
    """Seen late it would be said that the peer stopped reading."""
    with joined(world, network_timeout_s=60.0) as (upper_layer, peer):
        peer.sendall(RELEASE_RQ)
        with pytest.raises(PeerUnreachable, match="ended"):
            upper_layer.send([bytes(1 << 20)] * 64)


def test_our_last_word_is_an_abort_and_a_goodbye(world: World) -> None:
    with joined(world) as (upper_layer, peer):
        upper_layer.abort()
        assert read_pdu(peer)[0] == 7
        upper_layer._close()
        assert peer.recv(100) == b""  # close_notify: an end that nobody between can forge


def test_a_wake_reaches_a_thread_that_waits(world: World) -> None:
    with joined(world) as (upper_layer, peer):
        threading.Timer(0.05, upper_layer.ask_abort).start()
        assert upper_layer.receive(60.0)
        assert read_pdu(peer)[0] == 7
