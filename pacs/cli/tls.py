"""``pacs tls``: certificates for trying out, and what is configured."""

import os
from pathlib import Path

import click

from pacs.cli.home import Home, pass_home
from pacs.cli.output import emit, json_option, note

_COLUMNS = ["what", "subject", "fingerprint", "not_after_utc", "file"]

_host_option = click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Host name or IP address it may be called by (SubjectAltName).",
)
_days_option = click.option(
    "--days",
    type=click.IntRange(1, 36_500),
    default=825,
    show_default=True,
    help="For how long it holds.",
)


@click.group()
def tls() -> None:
    """Make certificates to try TLS with, and see which are configured."""


@tls.command()
@_host_option
@_days_option
@pass_home
def init(home: Home, *, hosts: tuple[str, ...], days: int) -> None:
    """Make a local CA and the server's certificate where pacs.toml looks for them by default.

    Without --host it is for this machine's name and loopback. Nothing is overwritten.
    """
    from pacs.services.tls import CertificateMaker, Subject, hosts_of

    name = home.load().settings.dicom.ae_title.strip()
    machine = os.uname().nodename
    subject = Subject(name=name, hosts=hosts_of(hosts, machine), days=days)
    authority, server = CertificateMaker(home.path).begin(subject)
    _said("CA", authority.certificate)
    _said("server", server.certificate)
    note(f"Next: pacs --home {home.path} serve --tls-port 2762")


@tls.command()
@click.argument("name")
@_host_option
@_days_option
@pass_home
def client(home: Home, *, name: str, hosts: tuple[str, ...], days: int) -> None:
    """Make a certificate for a device, signed by the local CA, to be carried there with its key."""
    from pacs.services.tls import CertificateMaker, Subject

    pair = CertificateMaker(home.path).client(Subject(name=name, hosts=hosts, days=days))
    _said("client", pair.certificate)
    click.echo(f"key {pair.key}")


@tls.command()
@json_option
@pass_home
def show(home: Home, *, as_json: bool) -> None:
    """List our certificate, the CAs we trust, CRLs, and the certificates made here for devices.

    A fingerprint is what --certificate takes where a device is bound to its certificate.
    """
    from pacs.association.certificates import described
    from pacs.services.tls import CertificateMaker

    settings = home.load().settings.tls
    rows = [
        *described(settings, home.path),
        *(row for path in CertificateMaker(home.path).made() for row in _described(path)),
    ]
    emit(rows, _COLUMNS, as_json=as_json)
    where = f"tls.port {settings.port}" if settings.port else "tls.port is 0: nothing is served"
    note(f"{where}; client certificates {settings.client_certificates}")


def _described(path: Path) -> list[dict[str, object]]:
    from pacs.association.certificates import described_certificates

    return described_certificates("client made here", path)


def _said(what: str, path: Path) -> None:
    (row,) = _described(path)
    click.echo(f"{what} {path} fingerprint {row['fingerprint']} until {row['not_after_utc']}")
