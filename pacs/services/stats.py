"""How much the archive holds, in numbers without names."""

from collections.abc import Mapping
from typing import Protocol

from pacs.core.caller import Caller
from pacs.core.ports import InstanceStore


class Counts(Protocol):
    """What is counted in the index; see ``storage.database.stats``."""

    def counts(self) -> Mapping[str, int]: ...


class Statistics:
    """Counts what is held."""

    def __init__(self, counts: Counts, store: InstanceStore) -> None:
        self._counts = counts
        self._store = store

    def read(self, caller: Caller) -> Mapping[str, int]:
        """Counts by name; sizes in bytes. What is deleted but not yet removed counts apart."""
        return {**self._counts.counts(), "free_bytes": self._store.free_bytes()}
