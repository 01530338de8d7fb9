"""The operations that are installed: ours and those of extensions, by name and version.

Owns which version is meant, and that none is offered twice. Refuses to run
anything: the worker imports the one that a request names by its place.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from processing.operations.loading import OperationInvalid, loaded
from processing.operations.operation import Operation
from processing.operations.registry import PLACES

_MAX_TOLD = 64


class OperationUnknown(ValueError):
    """There is no such operation, or not in that version; the text says what there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """One operation and where it is found, as "module:ATTRIBUTE"."""

    place: str
    operation: Operation


class Catalogue:
    """What can be asked for. Ours come first."""

    def __init__(self, further: Iterable[str] = ()) -> None:
        """Load ours and those at ``further`` places. Raises ``OperationInvalid``."""
        self._offered: dict[tuple[str, str], Offered] = {}
        for place in (*PLACES, *further):
            one = Offered(place=place, operation=loaded(place))
            key = (one.operation.name, one.operation.version)
            if key in self._offered:
                said = f"{self._offered[key].place} and {place}"
                raise OperationInvalid(f"two operations are {' '.join(key)}: {said}")
            self._offered[key] = one

    @property
    def operations(self) -> Sequence[Operation]:
        """All of them, ours first."""
        return [one.operation for one in self._offered.values()]

    def find(self, name: str, version: str = "") -> Offered:
        """Give the one that is meant, the newest unless a version is pinned. Raises ``OperationUnknown``."""
        versions = [one for (known, _), one in self._offered.items() if known == name]
        if not versions:
            raise OperationUnknown(f"there is no operation {name[:_MAX_TOLD]!r}")
        if not version:
            return max(versions, key=lambda one: _newness(one.operation.version))
        for one in versions:
            if one.operation.version == version:
                return one
        installed = ", ".join(one.operation.version for one in versions)
        raise OperationUnknown(
            f"{name} is not installed in version {version[:_MAX_TOLD]!r}, only {installed}"
        )


def _newness(version: str) -> tuple[int, ...]:
    """Order versions by their numbers; 1.0 and 1.0.0 are equally new."""
    numbers = [int(one) for one in version.split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
