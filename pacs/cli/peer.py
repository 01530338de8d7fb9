"""``pacs peer``: the devices the archive may send to, the command line may call, and subscribers call from."""

from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import click

from pacs.cli.archive import opened
from pacs.cli.home import Home, pass_home
from pacs.cli.output import emit, json_option, note
from pacs.core.caller import admin
from pacs.core.records import Peer, PeerEncoding
from pacs.services.peer import (
    LEAST_RATE_MBIT_S,
    MAX_ASSOCIATIONS,
    MOST_RATE_MBIT_S,
    Binding,
    SendingPolicy,
)

_BINDING = ("subscriber", "nobodys", "networks", "any_network", "certificate", "uncertified")


@click.group()
def peer() -> None:
    """Name devices by AE title."""


@peer.command()
@click.argument("ae_title", metavar="AE")
@click.argument("host")
@click.argument("port", type=click.IntRange(1, 65_535))
@click.option(
    "--associations",
    type=click.IntRange(1, MAX_ASSOCIATIONS),
    default=1,
    show_default=True,
    help="How many associations of one C-MOVE, or one study forwarded, the device takes at once.",
)
@click.option(
    "--encoding",
    type=click.Choice([one.value for one in PeerEncoding]),
    default=PeerEncoding.AS_STORED.value,
    show_default=True,
    help="In which form it gets what it takes in several; compressed is lossless.",
)
@click.option(
    "--rate",
    "rate_mbit_s",
    metavar="MBIT",
    type=click.FloatRange(LEAST_RATE_MBIT_S, MOST_RATE_MBIT_S),
    help="Most that is sent to it, in Mbit/s, by each process; as fast as it goes unless given.",
)
@click.option("--tls/--no-tls", default=None, help="It is called over TLS, or without.")
@click.option("--subscriber", metavar="NAME", help="Whose it is; it may call us then.")
@click.option("--no-subscriber", "nobodys", is_flag=True, help="It is nobody's any more.")
@click.option(
    "--network",
    "networks",
    metavar="CIDR",
    multiple=True,
    help="Where it calls from; HOST unless given. May be given again.",
)
@click.option(
    "--any-network",
    is_flag=True,
    help="No networks any more: it calls from HOST, or from anywhere by its certificate.",
)
@click.option(
    "--certificate",
    metavar="PEM-FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The certificate it must show when it calls.",
)
@click.option("--no-certificate", "uncertified", is_flag=True, help="It need not show one.")
@pass_home
def add(home: Home, /, *, ae_title: str, host: str, port: int, **said: Any) -> None:
    """Add a peer, or change the one of that AE title; holds within a second.

    What bounds or protects a peer that is there stays until it is dropped by name:
    --no-subscriber, --any-network, --no-certificate, --no-tls. How much is sent to it
    at once, how fast and in which form is as usual again where it is not given.
    """
    binding = _binding(**{key: said.pop(key) for key in _BINDING})
    sending = SendingPolicy(**{**said, "encoding": PeerEncoding(said["encoding"])})
    with opened(home) as archive:
        added = archive.peers.add(admin("peer add"), ae_title, host, port, sending, binding)
    click.echo(f"{added.ae_title} is {added.host}:{added.port}{''.join(_bounds(added))}")


def _bounds(peer: Peer) -> Iterator[str]:
    """Say what holds, as some of it may have been said long ago."""
    if peer.subscriber:
        yield f", of {peer.subscriber}"
    if peer.tls:
        yield ", over TLS"
    if peer.networks:
        yield f", from {', '.join(peer.networks)}"
    if peer.certificate_fingerprint:
        yield f", certificate {peer.certificate_fingerprint}"


def _binding(
    *,
    subscriber: str | None,
    nobodys: bool,
    networks: tuple[str, ...],
    any_network: bool,
    certificate: Path | None,
    uncertified: bool,
) -> Binding:
    if nobodys and subscriber is not None:
        raise click.UsageError("--subscriber and --no-subscriber contradict each other")
    if uncertified and certificate is not None:
        raise click.UsageError("--certificate and --no-certificate contradict each other")
    if any_network and networks:
        raise click.UsageError("--network and --any-network contradict each other")
    if subscriber == "":
        raise click.UsageError("a subscriber has a name; --no-subscriber says that it has none")
    fingerprint = None if certificate is None else _fingerprint(certificate)
    if certificate is None and (uncertified or nobodys):
        fingerprint = ""  # what is nobody's does not call: from nowhere, with no certificate
    return Binding(
        subscriber="" if nobodys else subscriber,
        networks=networks if networks or any_network or nobodys else None,
        certificate_fingerprint=fingerprint,
    )


def _fingerprint(path: Path) -> str:
    """SHA-256 of the DER form of the first certificate in a file. Raises ``UsageError``."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509 import load_pem_x509_certificate

    try:
        certificate = load_pem_x509_certificate(path.read_bytes())
    except (ValueError, OSError) as error:
        raise click.UsageError(f"{path} holds no certificate in PEM form") from error
    return certificate.fingerprint(SHA256()).hex()


@peer.command("list")
@json_option
@pass_home
def list_peers(home: Home, *, as_json: bool) -> None:
    """List all peers."""
    with opened(home) as archive:
        peers = archive.peers.list(admin("peer list"))
    rows = [{**asdict(one), "encoding": one.encoding.value} for one in peers]
    emit(rows, [field.name for field in fields(Peer)], as_json=as_json)


@peer.command()
@click.argument("ae_title", metavar="AE")
@pass_home
def remove(home: Home, *, ae_title: str) -> None:
    """Remove a peer; holds within a second. What routes send to it fails until it is added again."""
    from pacs.app.route import routes

    caller = admin("peer remove")
    with opened(home) as archive:
        archive.peers.remove(caller, ae_title)
        orphans = [one.name for one in routes(archive).list(caller) if ae_title in one.destinations]
    click.echo(f"{ae_title} removed")
    if orphans:
        note(f"still a destination of: {', '.join(orphans)}; what they send there fails")
