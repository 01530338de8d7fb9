"""Reading JSON that people may have written: right types, nothing missing, nothing unknown.

Owns that and what is said of a fault; what the values mean is for whoever reads them.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import time
from enum import Enum
from typing import TypeVar

from pacs.core.errors import EntryConflicts

Json = dict[str, object]
Kind = TypeVar("Kind")
Choice = TypeVar("Choice", bound=Enum)


class Form:
    """One JSON object being read; what nobody has taken at the end is unknown."""

    def __init__(self, form: object, place: str) -> None:
        if not isinstance(form, Mapping) or not all(isinstance(one, str) for one in form):
            raise EntryConflicts(f"{place}: expected an object")
        self._left = dict(form)
        self.place = place

    def wrong(self, key: str, why: str) -> EntryConflicts:
        """Make the error that says what is wrong with a key."""
        return EntryConflicts(f"{self.place}: {key} {why}")

    def take(self, key: str, kind: type[Kind], missing: object = ...) -> Kind:
        """Take a value of that type, or what is given for a missing one. Raises ``EntryConflicts``."""
        value = self._left.pop(key, missing)
        if value is ...:
            raise self.wrong(key, "is missing")
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(key, "is of the wrong type")
        return value

    def text(self, key: str, missing: object = ...) -> str:
        """Take a text."""
        return self.take(key, str, missing)

    def number(self, key: str, missing: object = ...) -> int:
        """Take a whole number."""
        return self.take(key, int, missing)

    def mapping(self, key: str) -> dict[str, str]:
        """Take an object of texts; empty where it is missing."""
        values: Mapping[str, object] = self.take(key, dict, {})
        found = {name: one for name, one in values.items() if isinstance(one, str)}
        if len(found) != len(values):
            raise self.wrong(key, "maps texts to texts")
        return found

    def number_or_none(self, key: str) -> int | None:
        """Take a whole number, or nothing."""
        if self._left.get(key) is None:
            self._left.pop(key, None)
            return None
        return self.number(key)

    def flag(self, key: str, *, missing: bool = False) -> bool:
        """Take true or false."""
        return self.take(key, bool, missing)

    def texts(self, key: str, missing: object = ...) -> tuple[str, ...]:
        """Take a list of texts."""
        values: Sequence[object] = self.take(key, list, missing)
        found = tuple(one for one in values if isinstance(one, str))
        if len(found) != len(values):
            raise self.wrong(key, "lists texts")
        return found

    def forms(self, key: str) -> list["Form"]:
        """Take a list of objects; empty where it is missing."""
        values: list[object] = self.take(key, list, [])
        return [Form(one, f"{self.place}: {key}[{at}]") for at, one in enumerate(values)]

    def form(self, key: str) -> list["Form"]:
        """Take an object or nothing, as a list of one or none."""
        value = self._left.pop(key, None)
        return [] if value is None else [Form(value, f"{self.place}: {key}")]

    def choice(self, key: str, kind: Callable[[str], Choice], missing: Choice | None) -> Choice:
        """Take one of the words of an enumeration."""
        if missing is not None and key not in self._left:
            return missing
        text = self.text(key)
        try:
            return kind(text)
        except ValueError as error:
            raise self.wrong(key, f"cannot be {text!r}") from error

    def clock(self, key: str) -> time:
        """Take a time of day."""
        text = self.text(key, "00:00")
        try:
            read = time.fromisoformat(text)
        except ValueError as error:
            raise self.wrong(key, "is a time of day as 07:30") from error
        if read.tzinfo is not None:
            raise self.wrong(key, "has no time zone of its own")
        return read

    def close(self) -> None:
        """End reading. Raises ``EntryConflicts`` where something is left."""
        if self._left:
            raise self.wrong(min(self._left), "is unknown")
