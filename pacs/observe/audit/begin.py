"""How a chain begins, and how it goes on where its head was lost. Whatever is missing, records are written.

A head that is gone beside its key is read off the records. Where the key is gone, too, they can
neither be believed nor doubted: they stay, named ``.unchained``, beside a chain that begins anew
and says so. Decides nothing about records that follow.
"""

import os
from collections.abc import Callable
from pathlib import Path

from pacs.observe.audit.chain import GENESIS
from pacs.observe.audit.heal import recovered
from pacs.observe.audit.keep import Head, Keep, append, days, file_of, sync_folder

UNCHAINED = ".unchained"
_AS_BEFORE = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
_KEPT_BESIDE = "what was recorded before is kept as .unchained: its key or head was gone"
HELD = "instances are held, and nothing is on record of how they came"


def begun(folder: Path, keep: Keep, today: int, boot: bytes) -> tuple[Head, bytes]:
    """Head and key of the chain that is there, else of a new one. Raises ``OSError``."""
    head, key = keep.head(), keep.key()
    if key is not None and head is None:
        head = _found_again(folder, keep, key, boot)
    if key is not None and head is not None:
        return head, key
    _set_aside(folder)
    keep.clear()
    keep.renew()  # or who has the old key would go on with it
    key = keep.new_key()
    head = Head(0, today, 0, 0, 0, GENESIS, boot)
    keep.put_head(head)
    keep.sync_head()  # a key without a head is what power must not leave behind
    return head, key


def unaccounted(folder: Path, holds_instances: Callable[[], bool]) -> str:
    """What a chain without a record yet cannot account for; empty where nothing was before it."""
    if set_aside(folder):
        return _KEPT_BESIDE
    return HELD if holds_instances() else ""


def set_aside(folder: Path) -> list[Path]:
    """The files that no chain speaks of any more."""
    return sorted(folder.glob(f"*{UNCHAINED}"))


def _found_again(folder: Path, keep: Keep, key: bytes, boot: bytes) -> Head | None:
    """The head as the newest records have it, once a record behind them says that it was lost."""
    written = [day for day in days(folder) if file_of(folder, day).stat().st_size]
    if not written:
        return None
    path = file_of(folder, written[-1])
    found = recovered(path, written[-1], key, boot)
    if found is None:
        return None
    head, line = found
    descriptor = os.open(path, _AS_BEFORE)
    try:
        append(descriptor, head.offset - len(line), line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    keep.put_head(head)  # only now: whoever is ended before says it again
    keep.sync_head()
    return head


def _set_aside(folder: Path) -> None:
    for day in days(folder):
        path = file_of(folder, day)
        if path.stat().st_size:
            path.rename(_free(path))
    sync_folder(folder)


def _free(path: Path) -> Path:
    """A name for a file that is set aside; one day may be so more than once."""
    name, number = path.with_suffix(UNCHAINED), 1
    while name.exists():
        number += 1
        name = path.with_suffix(f".{number}{UNCHAINED}")
    return name
