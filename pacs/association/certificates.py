"""What certificates and CRLs say: whose they are, and until when they hold. RFC 5280.

Owns their reading; whether they are believed is ``tls``'s. A module of its own
because the library takes long to import, and most commands read none.
"""

import logging
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from config.settings import Tls
from pacs.association.tls import require_readable
from pacs.core.caller import Certificate
from pacs.core.errors import SettingsInvalid

LOGGER = logging.getLogger("pacs.association")

Row = dict[str, object]


def certificate_in(der: bytes) -> Certificate | None:
    """Say what a certificate says; ``None`` where it cannot be read."""
    try:
        return _said(x509.load_der_x509_certificate(der))
    except ValueError:
        return None


def _said(certificate: x509.Certificate) -> Certificate:
    return Certificate(
        fingerprint=certificate.fingerprint(SHA256()).hex(),
        subject=certificate.subject.rfc4514_string(),
        not_after_utc=certificate.not_valid_after_utc,
    )


def described(settings: Tls, home: Path) -> list[Row]:
    """List what the settings name, and until when it holds. Raises ``SettingsInvalid``."""
    rows = []
    if settings.certificate:
        rows += described_certificates("tls.certificate", home / settings.certificate)
    rows += described_certificates("tls.trusted", home / settings.trusted)
    for one in settings.revoked:
        rows += _described_crl(home / one)
    return rows


def described_certificates(what: str, path: Path) -> list[Row]:
    """List the certificates of a file. Raises ``SettingsInvalid``."""
    require_readable(what, path)
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError:
        raise SettingsInvalid(f"{what}: {path} holds no certificate in PEM") from None
    return [{"what": what, **asdict(_said(one)), "file": str(path)} for one in found]


def _described_crl(path: Path) -> list[Row]:
    require_readable("tls.revoked", path)
    try:
        crl = x509.load_pem_x509_crl(path.read_bytes())
    except ValueError:
        raise SettingsInvalid(f"tls.revoked: {path} holds no CRL in PEM") from None
    return [
        {
            "what": "tls.revoked",
            "subject": crl.issuer.rfc4514_string(),
            "fingerprint": "",
            "not_after_utc": crl.next_update_utc,
            "file": str(path),
        }
    ]


def warn_of_endings(settings: Tls, home: Path, now_utc: datetime) -> None:
    """Have the log say what is about to end, or has ended."""
    try:
        rows = described(settings, home)
    except SettingsInvalid as error:
        LOGGER.error("tls-unreadable why=%s", error)
        return
    for row in rows:
        until_utc = row["not_after_utc"]
        if isinstance(until_utc, datetime) and (until_utc - now_utc).days < settings.warn_days:
            LOGGER.warning(
                "tls-ends-soon what=%s file=%s until=%s", row["what"], row["file"], until_utc
            )
