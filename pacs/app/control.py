"""What the server and one of its listeners tell each other, one message a packet.

Owns the form of the messages and nothing that follows from them. Settings
travel in full, as the server resolved them, and never on a command line: they
may hold a password. The end of the packets means that the other side is gone.
"""

import os
import socket
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from config.load import Loaded
from config.settings import Settings
from pacs.app.extension import installed
from pacs.core import errors

DRAIN = b"drain"
"""What a listener is told when it is to end in order."""
RELOAD = b"reload"
"""What it is told when certificates are to be read again."""
_MAX_BYTES = 1 << 20
_DESCRIPTORS = ("listening", "listening_tls", "board", "lock")


class Orders(Struct, frozen=True, kw_only=True):
    """What a listener needs to begin; descriptors travel with it, -1 for none."""

    home: str
    listener: int
    settings: Settings
    extensions: Mapping[str, Any]
    listening: int
    listening_tls: int
    board: int
    lock: int

    @property
    def descriptors(self) -> list[int]:
        """Those there are."""
        every = (getattr(self, name) for name in _DESCRIPTORS)
        return [one for one in every if one >= 0]

    @property
    def receiver(self) -> str:
        """Name of the folders that are this listener's own."""
        return f"listener-{self.listener}"

    def loaded(self) -> Loaded:
        """The settings as the server had them, those of extensions included."""
        kinds = {one.name: one.settings for one in installed()}
        return Loaded(
            settings=self.settings,
            extensions={
                name: msgspec.convert(table, kinds[name])
                for name, table in self.extensions.items()
                if name in kinds
            },
        )


class Report(Struct, frozen=True, kw_only=True):
    """What a listener says once: that it serves, or the error why it does not."""

    error: str = ""
    message: str = ""

    def raised(self) -> errors.PacsError:
        """The error as the server raises it."""
        kind = getattr(errors, self.error, None)
        if isinstance(kind, type) and issubclass(kind, errors.PacsError):
            return kind(self.message)
        return errors.ListenerFailed(f"a listener could not start: {self.error}")


def pair() -> tuple[socket.socket, socket.socket]:
    """Make the two ends: ours and the listener's."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send_orders(control: socket.socket, orders: Orders) -> None:
    """Tell a listener, and hand it what it is to hold."""
    socket.send_fds(control, [msgspec.json.encode(orders)], orders.descriptors)


def receive_orders(control: socket.socket) -> Orders:
    """Wait for the orders; descriptors in it are this process's. Raises ``EOFError`` where none come."""
    content, received, _, _ = socket.recv_fds(control, _MAX_BYTES, len(_DESCRIPTORS))
    if not content:
        raise EOFError("the server has ended")
    for one in received:
        os.set_inheritable(one, False)
    orders = msgspec.json.decode(content, type=Orders)
    named = [name for name in _DESCRIPTORS if getattr(orders, name) >= 0]
    return msgspec.structs.replace(orders, **dict(zip(named, received, strict=True)))


def report(control: socket.socket, message: Report) -> None:
    """Tell the server."""
    control.sendall(msgspec.json.encode(message))


def receive_report(control: socket.socket) -> Report | None:
    """Take the report; nothing where the listener has ended."""
    try:
        packet = control.recv(_MAX_BYTES)
    except ConnectionResetError:  # it ended before it read everything
        return None
    return msgspec.json.decode(packet, type=Report) if packet else None
