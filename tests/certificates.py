"""Certificates for the tests, good and bad, in the files the settings name."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from config.settings import Tls

FAST_DAYS = timedelta(days=30)


class Authority:
    """A CA and the files of those it has signed, in a folder of their own."""

    def __init__(self, folder: Path, ca: trustme.CA | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.ca = ca or trustme.CA(organization_name=folder.name)
        self.trusted = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(self.trusted)

    def issue(self, name: str, *, until: timedelta = FAST_DAYS) -> "Issued":
        """Sign a certificate."""
        now = datetime.now(UTC)
        signed = self.ca.issue_cert(
            "localhost",
            "127.0.0.1",
            common_name=name,
            not_before=now - timedelta(days=60),
            not_after=now + until,
        )
        return Issued(self.folder / name, signed)

    def revoke(self, *issued: x509.Certificate, until: timedelta = FAST_DAYS) -> Path:
        """Write a CRL."""
        now = datetime.now(UTC)
        certificate = x509.load_pem_x509_certificate(self.ca.cert_pem.bytes())
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(certificate.subject)
            .last_update(now - timedelta(days=60))
            .next_update(now + until)
        )
        for one in issued:
            revoked = x509.RevokedCertificateBuilder().serial_number(one.serial_number)
            builder = builder.add_revoked_certificate(revoked.revocation_date(now).build())
        key = load_pem_private_key(self.ca.private_key_pem.bytes(), password=None)
        assert isinstance(key, EllipticCurvePrivateKey)
        path = self.folder / "revoked.pem"
        path.write_bytes(builder.sign(key, SHA256()).public_bytes(Encoding.PEM))
        return path


class Issued:
    """A certificate with its key: one file of each."""

    def __init__(self, stem: Path, signed: trustme.LeafCert) -> None:
        self.certificate, self.key = stem.with_suffix(".pem"), stem.with_suffix(".key")
        self.certificate.unlink(missing_ok=True)
        for blob in signed.cert_chain_pems:
            blob.write_to_path(self.certificate, append=True)
        signed.private_key_pem.write_to_path(self.key)
        self.x509 = x509.load_pem_x509_certificate(signed.cert_chain_pems[0].bytes())

    @property
    def fingerprint(self) -> str:
        """As settings and peers have it."""
        return self.x509.fingerprint(SHA256()).hex()


def settings(shown: Issued | None, trusting: Authority, *revoked: Path, **more: object) -> Tls:
    """Name the files."""
    return Tls(
        certificate=str(shown.certificate) if shown else "",
        key=str(shown.key) if shown else "",
        trusted=str(trusting.trusted),
        revoked=tuple(map(str, revoked)),
        **more,  # type: ignore[arg-type]
    )


def client(trusting: Authority, shown: Issued | None = None) -> ssl.SSLContext:
    """A client of the standard library's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(trusting.trusted)
    if shown is not None:
        context.load_cert_chain(shown.certificate, shown.key)
    return context
