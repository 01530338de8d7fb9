"""Keys and certificates for trying out TLS: a CA of one's own, and what it has signed. RFC 5280.

Owns what stands in them and that no file is ever overwritten. Refuses to be a
CA for a hospital: nothing is listed, renewed or revoked here.
"""

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pacs.core.errors import EntryConflicts, EntryNotFound, SettingsInvalid

FOLDER = "tls"
CA, SERVER, CLIENTS = "ca", "server", "clients"
KEY_BITS = 2_048
CA_KEY_BITS = 3_072
"""A CA holds for ten years, what it signs for two."""
CA_DAYS = 3_650
DAYS = 825
_SKEW = timedelta(hours=1)
"""Certificates begin so long ago: clocks of devices are wrong."""
_HOST = re.compile(r"[A-Za-z0-9*][A-Za-z0-9_.-]{0,252}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Where a certificate and its private key lie."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Whom a certificate is for: its name, and the hosts and addresses it may be called by."""

    name: str
    hosts: tuple[str, ...] = ()
    days: int = DAYS


class CertificateMaker:
    """Makes files in a folder of home."""

    def __init__(self, home: Path) -> None:
        self._folder = home / FOLDER

    def begin(self, subject: Subject) -> tuple[Pair, Pair]:
        """Make a CA and, signed by it, the server's certificate.

        Raises ``EntryConflicts`` where one of the files is there, and then makes none.
        """
        pairs = self._pair(CA), self._pair(SERVER)
        _require_absent(*pairs)
        key = _new_key(CA_KEY_BITS)
        issuer = _name(f"{subject.name} local CA")
        authority = _authority(issuer, key)
        server_key = _new_key()
        server = _signed(subject, server_key, authority, key)
        _write(pairs[0], authority, key)
        _write(pairs[1], server, server_key)
        return pairs

    def client(self, subject: Subject) -> Pair:
        """Make a certificate for a device. Raises ``EntryNotFound`` without a CA, ``EntryConflicts``."""
        if not _NAME.fullmatch(subject.name):
            raise SettingsInvalid(f"{subject.name!r} cannot name a file: letters, digits, _ . -")
        pair = self._pair(f"{CLIENTS}/{subject.name}")
        _require_absent(pair)
        authority, authority_key = self._opened()
        key = _new_key()
        _write(pair, _signed(subject, key, authority, authority_key), key)
        return pair

    def made(self) -> list[Path]:
        """List the certificates made here for devices."""
        return sorted((self._folder / CLIENTS).glob("*.pem"))

    def _pair(self, name: str) -> Pair:
        return Pair(
            certificate=self._folder / f"{name}.pem",
            key=self._folder / f"{name}.key",
        )

    def _opened(self) -> tuple[x509.Certificate, RSAPrivateKey]:
        pair = self._pair(CA)
        try:
            certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
            key = load_pem_private_key(pair.key.read_bytes(), password=None)
        except OSError as error:
            raise EntryNotFound(f"no CA in {self._folder}: run 'pacs tls init' first") from error
        if not isinstance(key, RSAPrivateKey):
            raise EntryNotFound(f"{pair.key} was not made by 'pacs tls init'")
        return certificate, key


def _authority(issuer: x509.Name, key: RSAPrivateKey) -> x509.Certificate:
    usage = _usage(key_cert_sign=True, crl_sign=True)
    builder = (
        _begun(issuer, issuer, key, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return builder.sign(key, SHA256())


def _signed(
    subject: Subject, key: RSAPrivateKey, authority: x509.Certificate, authority_key: RSAPrivateKey
) -> x509.Certificate:
    """A device calls and is called: its certificate is good for both."""
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        _begun(_name(subject.name), authority.subject, key, subject.days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True, key_encipherment=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
    )
    if subject.hosts:
        names = x509.SubjectAlternativeName([_host(one) for one in subject.hosts])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(authority_key, SHA256())


def _begun(
    subject: x509.Name, issuer: x509.Name, key: RSAPrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(**granted: bool) -> x509.KeyUsage:
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{one: granted.get(one, False) for one in every})


def _name(text: str) -> x509.Name:
    try:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
    except ValueError as error:  # 1 to 64 characters
        raise SettingsInvalid(f"{text!r} cannot name a certificate: {error}") from error


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        if _HOST.fullmatch(text):
            return x509.DNSName(text)
        raise SettingsInvalid(f"{text!r} is neither a host name nor an address") from None


def _new_key(bits: int = KEY_BITS) -> RSAPrivateKey:
    return generate_private_key(public_exponent=65_537, key_size=bits)


def _require_absent(*pairs: Pair) -> None:
    for pair in pairs:
        for path in (pair.certificate, pair.key):
            if path.exists():
                raise EntryConflicts(f"{path} is there already; nothing is overwritten")


def _write(pair: Pair, certificate: x509.Certificate, key: RSAPrivateKey) -> None:
    encoded = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _create(pair.key, encoded, 0o600)
    _create(pair.certificate, certificate.public_bytes(Encoding.PEM), 0o644)


def _create(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise EntryConflicts(f"{path} is there already; nothing is overwritten") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def hosts_of(given: Sequence[str], machine: str) -> tuple[str, ...]:
    """What a server may be called by: what is given, else this machine and loopback.

    >>> hosts_of((), "pacs-1")
    ('pacs-1', 'localhost', '127.0.0.1', '::1')
    """
    return tuple(given) or tuple(dict.fromkeys((machine, "localhost", "127.0.0.1", "::1")))
