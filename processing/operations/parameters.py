"""Parameters of operations: typed fields with a default, bounds and a sentence each.

Owns reading them from text, as the command line and later a workitem give them,
and refusing what is out of bounds. Each operation declares its own dataclass.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_TEXT = 64
"""No parameter needs more characters; a longer one is not even looked at."""


class ParameterRefused(ValueError):
    """A parameter is unknown, is no value of its kind or out of its bounds; the text says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a value must be: of ``kind``, between bounds or one of ``choices``."""

    kind: type
    says: str
    least: float = -math.inf
    most: float = math.inf
    choices: tuple[str, ...] = ()
    odd: bool = False
    is_length: bool = False
    """The parameter ``unit`` says whether it is in mm or in pixels."""

    def read(self, name: str, text: str) -> object:
        """Read a value. Raises ``ParameterRefused``."""
        if len(text) > MAX_TEXT:
            raise ParameterRefused(f"{name}: no value is so long")
        try:
            value: object = self.kind(text)
        except ValueError as error:
            raise ParameterRefused(f"{name} is {self.bounds}") from error
        self.check(name, value)
        return value

    def check(self, name: str, value: Any) -> None:
        """Hold a value to its kind and bounds. Raises ``ParameterRefused``."""
        right = value in self.choices if self.kind is str else self._within(value)
        if type(value) is not self.kind or not right:
            raise ParameterRefused(f"{name} is {self.bounds}")

    @property
    def bounds(self) -> str:
        """The rule in words."""
        if self.kind is str:
            return " or ".join(self.choices)
        what = "a number" if self.kind is float else "a whole number"
        return f"{what}{', odd,' if self.odd else ''} from {self.least:g} to {self.most:g}"

    def _within(self, value: object) -> bool:
        # NaN is within no bounds.
        if not isinstance(value, (int, float)) or not self.least <= value <= self.most:
            return False
        return not self.odd or value % 2 == 1


def number(default: float, *, least: float, most: float, says: str) -> Any:
    """Declare a real number."""
    rule = Rule(kind=float, says=says, least=least, most=most)
    return field(default=default, metadata={"rule": rule})


def length(default: float, *, least: float, most: float, says: str) -> Any:
    """Declare a length in the unit that the parameter declared by ``unit`` says."""
    rule = Rule(kind=float, says=says, least=least, most=most, is_length=True)
    return field(default=default, metadata={"rule": rule})


def whole(default: int, *, least: int, most: int, says: str, odd: bool = False) -> Any:
    """Declare a whole number."""
    rule = Rule(kind=int, says=says, least=least, most=most, odd=odd)
    return field(default=default, metadata={"rule": rule})


def choice(default: str, *others: str, says: str) -> Any:
    """Declare one of a few words."""
    rule = Rule(kind=str, says=says, choices=(default, *others))
    return field(default=default, metadata={"rule": rule})


def unit() -> Any:
    """Declare the unit of lengths."""
    return choice("mm", "px", says="Unit of lengths: mm by Pixel Spacing, or pixels")


class Parameters:
    """Base of all parameters: they are checked when they are made, by whoever makes them."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for name, rule in rules(type(self)).items():
            rule.check(name, getattr(self, name))


def rules(parameters: type[Any]) -> Mapping[str, Rule]:
    """Give the rule of each field, in their order."""
    return {one.name: one.metadata["rule"] for one in dataclasses.fields(parameters)}


def read(parameters: type[Any], settings: Mapping[str, str]) -> Any:
    """Make parameters from text. Raises ``ParameterRefused``."""
    known = rules(parameters)
    for name in settings:
        if name not in known:
            expected = ", ".join(known) or "there is none"
            raise ParameterRefused(f"no such parameter: {name[:MAX_TEXT]!r} ({expected})")
    return parameters(**{name: known[name].read(name, text) for name, text in settings.items()})


def told(parameters: object) -> Iterator[tuple[str, str]]:
    """Give every parameter as text that ``read`` takes back, defaults included.

    Numbers are told so that exactly the same number is read again.
    """
    for name in rules(type(parameters)):
        value = getattr(parameters, name)
        yield name, str(value)
