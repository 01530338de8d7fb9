"""What asks a nursery for children, where this process itself has no room for another."""

import errno
import socket

import pytest

from pacs.app import nursery
from pacs.app.nursery import ChildFailed, Nursery


def test_no_descriptor_for_one_more_child_ends_none_of_those_that_live(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    ours, theirs = nursery.pair()
    asking = Nursery()
    asking._asked = ours
    with ours, theirs:
        with monkeypatch.context() as patched:
            patched.setattr(socket, "socketpair", full)
            with pytest.raises(ChildFailed, match="Too many open files"):
                asking.begin("worker", [], control=ours.fileno())
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):  # its end would be read as nothing
            theirs.recv(1)
