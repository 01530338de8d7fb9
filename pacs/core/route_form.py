"""Routes as JSON: the form in which they are kept, exported and imported.

Owns that form and nothing else: what is read is of the right types, whether it
makes sense is for ``pacs.services.route``.
"""

from pacs.core.attributes import Level
from pacs.core.identifiers import AETitle, Registrant
from pacs.core.json_form import Form, Json
from pacs.core.routing import Coercion, CoercionKind, Commitment, Priors, Route, RouteKey, Window

LEVEL_OF = {"instance": Level.IMAGE, "series": Level.SERIES, "study": Level.STUDY}
"""What a route waits for, as people say it."""
WHEN_OF = {level: when for when, level in LEVEL_OF.items()}


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
    said = Form(form, "a route")
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


def _key_of(said: Form) -> RouteKey:
    key = RouteKey(path=said.text("key"), value=said.text("value"), unless=said.flag("unless"))
    said.close()
    return key


def _window_of(said: Form) -> Window:
    days = said.take("days", list, [])
    if not all(type(one) is int and 0 <= one <= 6 for one in days):
        raise said.wrong("days", "lists numbers from 0, Monday, to 6")
    window = Window(days=frozenset(days), begins=said.clock("begins"), ends=said.clock("ends"))
    said.close()
    return window


def _coercion_of(said: Form) -> Coercion:
    coercion = Coercion(
        kind=said.choice("kind", CoercionKind, None),
        keyword=said.text("key"),
        value=said.text("value", ""),
        mapping=said.mapping("mapping"),
    )
    said.close()
    return coercion


def _priors_of(said: Form) -> Priors:
    priors = Priors(
        latest=said.number("latest"),
        same_modality=said.flag("same_modality"),
        same_body_part=said.flag("same_body_part"),
        within_days=said.number_or_none("within_days"),
    )
    said.close()
    return priors
