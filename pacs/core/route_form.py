"""Routes as JSON: the form in which they are kept, exported and imported.

Owns that form and nothing else: what is read is of the right types, whether it
makes sense is for ``pacs.services.route``.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import time
from enum import Enum
from typing import TypeVar

from pacs.core.attributes import Level
from pacs.core.errors import EntryConflicts
from pacs.core.identifiers import AETitle, Registrant
from pacs.core.routing import Coercion, CoercionKind, Commitment, Priors, Route, RouteKey, Window

Json = dict[str, object]
LEVEL_OF = {"instance": Level.IMAGE, "series": Level.SERIES, "study": Level.STUDY}
"""What a route waits for, as people say it."""
WHEN_OF = {level: when for when, level in LEVEL_OF.items()}
Kind = TypeVar("Kind")
Choice = TypeVar("Choice", bound=Enum)


def form_of(route: Route) -> Json:
    """Write a route so that ``route_of`` reads the same one."""
    return {
        "name": route.name,
        "active": route.active,
        "when": WHEN_OF[route.level],
        "to": list(route.destinations),
        "keys": [{"key": one.path, "value": one.value, "unless": one.unless} for one in route.keys],
        "calling": list(route.calling_ae_titles),
        "called": list(route.called_ae_titles),
        "registrants": list(route.registrants),
        "windows": [
            {
                "days": sorted(one.days),
                "begins": one.begins.isoformat(),
                "ends": one.ends.isoformat(),
            }
            for one in route.windows
        ],
        "coercions": [
            {
                "kind": one.kind.value,
                "key": one.keyword,
                "value": one.value,
                "mapping": dict(one.mapping),
            }
            for one in route.coercions
        ],
        "priors": None if route.priors is None else _priors_form(route.priors),
        "commitment": route.commitment.value,
        "in_order": route.in_order,
        "priority": route.priority,
    }


def _priors_form(priors: Priors) -> Json:
    return {
        "latest": priors.latest,
        "same_modality": priors.same_modality,
        "same_body_part": priors.same_body_part,
        "within_days": priors.within_days,
    }


def route_of(form: object) -> Route:
    """Read a route. Only name, when and to are needed. Raises ``EntryConflicts`` naming the place."""
    said = _Form(form, "a route")
    name = said.text("name")
    said.place = f"route {name}"
    when = said.text("when")
    if when not in LEVEL_OF:
        raise said.wrong("when", f"is none of {', '.join(LEVEL_OF)}")
    route = Route(
        name=name,
        level=LEVEL_OF[when],
        destinations=tuple(AETitle(one) for one in said.texts("to")),
        keys=tuple(_key_of(one) for one in said.forms("keys")),
        calling_ae_titles=said.texts("calling", []),
        called_ae_titles=said.texts("called", []),
        registrants=tuple(Registrant(one) for one in said.texts("registrants", [])),
        windows=tuple(_window_of(one) for one in said.forms("windows")),
        coercions=tuple(_coercion_of(one) for one in said.forms("coercions")),
        priors=next((_priors_of(one) for one in said.form("priors")), None),
        commitment=said.choice("commitment", Commitment, Commitment.NO),
        in_order=said.flag("in_order"),
        priority=said.number("priority", 0),
        active=said.flag("active", missing=True),
    )
    said.close()
    return route


def _key_of(said: "_Form") -> RouteKey:
    key = RouteKey(path=said.text("key"), value=said.text("value"), unless=said.flag("unless"))
    said.close()
    return key


def _window_of(said: "_Form") -> Window:
    days = said.take("days", list, [])
    if not all(type(one) is int and 0 <= one <= 6 for one in days):
        raise said.wrong("days", "lists numbers from 0, Monday, to 6")
    window = Window(days=frozenset(days), begins=said.clock("begins"), ends=said.clock("ends"))
    said.close()
    return window


def _coercion_of(said: "_Form") -> Coercion:
    mapping = said.take("mapping", dict, {})
    if not all(isinstance(one, str) for one in mapping.values()):
        raise said.wrong("mapping", "maps texts to texts")
    coercion = Coercion(
        kind=said.choice("kind", CoercionKind, None),
        keyword=said.text("key"),
        value=said.text("value", ""),
        mapping=mapping,
    )
    said.close()
    return coercion


def _priors_of(said: "_Form") -> Priors:
    priors = Priors(
        latest=said.number("latest"),
        same_modality=said.flag("same_modality"),
        same_body_part=said.flag("same_body_part"),
        within_days=said.number_or_none("within_days"),
    )
    said.close()
    return priors


class _Form:
    """One JSON object being read; what nobody has taken at the end is unknown."""

    def __init__(self, form: object, place: str) -> None:
        if not isinstance(form, Mapping) or not all(isinstance(one, str) for one in form):
            raise EntryConflicts(f"{place}: expected an object")
        self._left = dict(form)
        self.place = place

    def wrong(self, key: str, why: str) -> EntryConflicts:
        return EntryConflicts(f"{self.place}: {key} {why}")

    def take(self, key: str, kind: type[Kind], missing: object = ...) -> Kind:
        value = self._left.pop(key, missing)
        if value is ...:
            raise self.wrong(key, "is missing")
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(key, "is of the wrong type")
        return value

    def text(self, key: str, missing: object = ...) -> str:
        return self.take(key, str, missing)

    def number(self, key: str, missing: object = ...) -> int:
        return self.take(key, int, missing)

    def number_or_none(self, key: str) -> int | None:
        if self._left.get(key) is None:
            self._left.pop(key, None)
            return None
        return self.number(key)

    def flag(self, key: str, *, missing: bool = False) -> bool:
        return self.take(key, bool, missing)

    def texts(self, key: str, missing: object = ...) -> tuple[str, ...]:
        values: Sequence[object] = self.take(key, list, missing)
        found = tuple(one for one in values if isinstance(one, str))
        if len(found) != len(values):
            raise self.wrong(key, "lists texts")
        return found

    def forms(self, key: str) -> list["_Form"]:
        values: list[object] = self.take(key, list, [])
        return [_Form(one, f"{self.place}: {key}[{at}]") for at, one in enumerate(values)]

    def form(self, key: str) -> list["_Form"]:
        value = self._left.pop(key, None)
        return [] if value is None else [_Form(value, f"{self.place}: {key}")]

    def choice(self, key: str, kind: Callable[[str], Choice], missing: Choice | None) -> Choice:
        if missing is not None and key not in self._left:
            return missing
        text = self.text(key)
        try:
            return kind(text)
        except ValueError as error:
            raise self.wrong(key, f"cannot be {text!r}") from error

    def clock(self, key: str) -> time:
        text = self.text(key, "00:00")
        try:
            read = time.fromisoformat(text)
        except ValueError as error:
            raise self.wrong(key, "is a time of day as 07:30") from error
        if read.tzinfo is not None:
            raise self.wrong(key, "has no time zone of its own")
        return read

    def close(self) -> None:
        if self._left:
            raise self.wrong(min(self._left), "is unknown")
