"""Who is trusted, and how it is encrypted: TLS as PS3.15 Section B.12 has it (BCP 195, RFC 8996 and 9325).

Owns the contexts and the files they are made of. A context is replaced as a
whole: connections keep the one they began with. Refuses to know how bytes
travel (``encrypted``) and whom a certificate admits (the ``Gate``).
"""

import hmac
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from config.settings import Tls
from pacs.association.encrypted import EncryptedConnection, Terms
from pacs.core.caller import Certificate
from pacs.core.errors import SettingsInvalid

LOGGER = logging.getLogger("pacs.association")

SUITES: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
)
"""What RFC 9325 Section 4.2 recommends for TLS 1.2; those of 1.3 are all it has."""
VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_MODES: Final = {
    "required": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "none": ssl.CERT_NONE,
}


class ServerTls:
    """What peers that call us are met with. ``reload`` may come from any thread."""

    def __init__(self, settings: Tls, home: Path) -> None:
        """Read the files. Raises ``SettingsInvalid``."""
        import pacs.association.certificates  # noqa: F401 - no handshake shall wait for it

        self._settings, self._home = settings, home
        self._context = server_context(settings, home)

    def reload(self) -> bool:
        """Read the files again for handshakes to come; where they cannot be used, what was stays."""
        try:
            self._context = server_context(self._settings, self._home)
        except SettingsInvalid as error:
            LOGGER.error("tls-reload-failed why=%s", error)
            return False
        LOGGER.info("tls-reloaded")
        return True

    def accept(
        self, connection: socket.socket, refused: Callable[[str], None]
    ) -> EncryptedConnection:
        """Begin TLS on a connection a peer has made; nothing is read or written yet."""
        terms = Terms(context=self._context, server_side=True, check=_proved, refused=refused)
        return EncryptedConnection(connection, terms)


class ClientTls:
    """How this process calls peers over TLS. Files are read when first needed, and again when they have changed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._settings: Tls | None = None
        self._home = Path()
        self._context: ssl.SSLContext | None = None
        self._made_of: object = None

    def set_up(self, settings: Tls, home: Path) -> None:
        """Say where the files are; nothing is read yet."""
        with self._lock:
            if (settings, home) != (self._settings, self._home):
                self._settings, self._home, self._context = settings, home, None

    def connect(self, connection: socket.socket, fingerprint: str = "") -> EncryptedConnection:
        """Begin TLS on a connection we have made; the peer has to have that certificate if one is named.

        Raises ``SettingsInvalid`` where the files cannot be used.
        """
        terms = Terms(
            context=self._current(),
            server_side=False,
            check=lambda der: _bound(_proved(der), fingerprint),
            refused=lambda _: None,
        )
        return EncryptedConnection(connection, terms)

    def _current(self) -> ssl.SSLContext:
        with self._lock:
            if self._settings is None:
                raise SettingsInvalid("TLS is not set up in this process")
            made_of = tuple(map(_stamp, files(self._settings, self._home)))
            if self._context is None or made_of != self._made_of:
                self._context = self._renewed(self._settings)
                self._made_of = made_of
            return self._context

    def _renewed(self, settings: Tls) -> ssl.SSLContext:
        try:
            return client_context(settings, self._home)
        except SettingsInvalid as error:
            if self._context is None:
                raise
            LOGGER.error("tls-reload-failed why=%s", error)
            return self._context


CALLS: Final = ClientTls()
"""Of this process: whoever opens an archive in it, or calls without one, sets it up."""


def server_context(settings: Tls, home: Path) -> ssl.SSLContext:
    """Make the context of a server. Raises ``SettingsInvalid``."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, settings)
    context.num_tickets = 0  # who comes back is verified again
    if not settings.certificate:
        raise SettingsInvalid("tls.certificate: a server has to have one")
    _show(context, settings, home)
    context.verify_mode = _MODES[settings.client_certificates]
    if context.verify_mode != ssl.CERT_NONE:
        _trust(context, settings, home)
    return context


def client_context(settings: Tls, home: Path) -> ssl.SSLContext:
    """Make the context of a client. Raises ``SettingsInvalid``."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, settings)
    context.check_hostname = False  # peers are entered by address, certificates name hosts
    if settings.certificate:
        _show(context, settings, home)
    _trust(context, settings, home)
    return context


def _context(protocol: int, settings: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = VERSIONS[settings.minimum_version]
    context.set_ciphers(":".join((*SUITES, "@SECLEVEL=2")))
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    return context


def _show(context: ssl.SSLContext, settings: Tls, home: Path) -> None:
    certificate, key = home / settings.certificate, home / settings.key
    require_readable("tls.certificate", certificate)
    require_readable("tls.key", key)
    try:
        # An encrypted key fails instead of asking at the terminal.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (OSError, ValueError) as error:
        raise SettingsInvalid(
            f"tls.certificate, tls.key: {certificate} and {key} are no usable pair: {_why(error)}"
        ) from None


def _trust(context: ssl.SSLContext, settings: Tls, home: Path) -> None:
    _load(context, "tls.trusted", home / settings.trusted)
    trusted = context.cert_store_stats()["x509"]
    for one in settings.revoked:
        _load(context, "tls.revoked", home / one)
    if context.cert_store_stats()["x509"] != trusted:  # the library would trust them, too
        raise SettingsInvalid("tls.revoked: only CRLs may be there, and there are certificates")
    if settings.revoked:
        context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_CHAIN


def _load(context: ssl.SSLContext, name: str, path: Path) -> None:
    require_readable(name, path)
    try:
        context.load_verify_locations(path)
    except OSError as error:  # of TLS as well; a file can be replaced at any moment
        raise SettingsInvalid(f"{name}: {path} cannot be used: {_why(error)}") from None


def require_readable(name: str, path: Path) -> None:
    """Raise ``SettingsInvalid`` where a file that a setting names cannot be read."""
    try:
        with path.open("rb"):
            return
    except OSError as error:
        raise SettingsInvalid(f"{name}: {path}: {error.strerror}") from None


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return str(reason or error).lower().replace("_", " ")


def _proved(der: bytes | None) -> Certificate | None:
    """Read what the library has verified; it does not when a session of TLS 1.2 is resumed."""
    from pacs.association.certificates import certificate_in

    if der is None:
        return None
    proved = certificate_in(der)
    if proved is None:
        raise ssl.SSLError(1, "the certificate cannot be read")
    if proved.not_after_utc < datetime.now(UTC):
        raise ssl.SSLError(1, "certificate has expired")
    return proved


def _bound(certificate: Certificate | None, fingerprint: str) -> Certificate | None:
    shown = "" if certificate is None else certificate.fingerprint
    if fingerprint and not hmac.compare_digest(shown, fingerprint.lower()):
        raise ssl.SSLError(1, "the peer's certificate is not the one it was entered with")
    return certificate


# --- files --------------------------------------------------------------------------------


def files(settings: Tls, home: Path) -> list[Path]:
    """List the files the settings name."""
    own = [settings.certificate, settings.key] if settings.certificate else []
    return [home / one for one in (*own, settings.trusted, *settings.revoked)]


def _stamp(path: Path) -> tuple[int, ...]:
    """What tells that a file has changed."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
