"""One audit message on its way: RFC 5424 header, octet counting, TLS. RFC 5425, PS3.15 A.6."""

import errno
import fcntl
import os
import socket
import ssl
import struct
import termios
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from config.settings import Audit

APP_NAME = "pacs"
MESSAGE_ID = "DICOM+RFC3881"
_NOTICE, _WARNING = 85, 84  # facility 10, severity 5 or 4: PS3.15 A.6
_BOM = b"\xef\xbb\xbf"
_MOST_SEQUENCE = 0x7FFF_FFFF


def framed(
    message: bytes, *, host: str, sent_utc: datetime, number: int, failed: bool = False
) -> bytes:
    """Put a message in its frame; ``number`` is its last record's.

    >>> sent_utc = datetime(2026, 1, 1, tzinfo=UTC)
    >>> said = framed(b"<AuditMessage/>", host="a", sent_utc=sent_utc, number=7)
    >>> length, _, whole = said.partition(b" ")
    >>> int(length) == len(whole), whole[:38]
    (True, b'<85>1 2026-01-01T00:00:00.000Z a pacs ')
    """
    stamp = sent_utc.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    priority = _WARNING if failed else _NOTICE
    sequence = (number - 1) % _MOST_SEQUENCE + 1
    header = (
        f"<{priority}>1 {stamp} {_printable(host)} {APP_NAME} {os.getpid()} {MESSAGE_ID} "
        f'[meta sequenceId="{sequence}"] '
    )
    whole = header.encode() + _BOM + message
    return b"%d " % len(whole) + whole


def _printable(host: str) -> str:
    """HOSTNAME of RFC 5424: printable ASCII without spaces, at most 255."""
    return "".join(one for one in host if "!" <= one <= "~")[:255] or "-"


class Collector:
    """One connection to the collector. Raises ``OSError``, of which TLS errors are a kind."""

    def __init__(self, settings: Audit) -> None:
        context = ssl.create_default_context(cafile=settings.collector_ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.certificate:
            context.load_cert_chain(settings.certificate, settings.private_key or None)
        address = (settings.collector_host, settings.collector_port)
        plain = socket.create_connection(address, timeout=settings.timeout_s)
        try:
            self._socket = context.wrap_socket(plain, server_hostname=settings.collector_host)
        except BaseException:
            plain.close()
            raise
        self._timeout_s = settings.timeout_s

    def send(self, frames: Sequence[bytes]) -> None:
        """Hand frames over."""
        self._socket.settimeout(self._timeout_s)
        self._socket.sendall(b"".join(frames))

    def check(self) -> None:
        """Raise where the collector has closed the connection."""
        self._socket.settimeout(0)
        with suppress(ssl.SSLWantReadError, BlockingIOError):
            while self._socket.recv(4_096):
                continue  # a collector has nothing to say
            raise ConnectionResetError(errno.ECONNRESET, "the collector closed the connection")

    def taken(self) -> bool:
        """Tell whether the collector's machine has acknowledged every byte."""
        held = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
        return not any(held)

    def finish(self, patience_s: float) -> bool:
        """End the stream and wait for the collector to do so, too: then it has read everything."""
        deadline_s = time.monotonic() + patience_s
        try:
            self._socket.settimeout(patience_s)
            plain = self._socket.unwrap()
            plain.settimeout(max(0.01, deadline_s - time.monotonic()))
            plain.shutdown(socket.SHUT_WR)
            return plain.recv(1) == b""
        except OSError:
            return False

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
