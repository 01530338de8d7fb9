"""What an administrator does with routes; each change is checked whole, and on record."""

import json
from collections.abc import Callable, Sequence
from datetime import tzinfo
from pathlib import Path
from typing import Protocol

from config.settings import Parsing
from pacs.core.caller import Caller
from pacs.core.errors import EntryConflicts, EntryNotFound
from pacs.core.identifiers import AETitle
from pacs.core.ports import AuditTrail
from pacs.core.records import Peer, Provenance
from pacs.core.route_form import form_of, route_of
from pacs.core.routing import Route
from pacs.services.route.asked import keys_of
from pacs.services.route.checks import Ourselves, check
from pacs.services.route.conditions import conditions
from pacs.services.route.trial import Trial, sample, tried

_VERSION = 1


class RouteRows(Protocol):
    """Where routes are kept; see ``storage.database.route``."""

    def list(self) -> Sequence[Route]: ...
    def find(self, name: str) -> Route | None: ...
    def put(self, routes: Sequence[Route], *, replacing: bool) -> None: ...
    def activate(self, name: str, *, active: bool) -> None: ...
    def remove(self, name: str) -> None: ...
    def waiting(self, prefixes: Sequence[str]) -> int: ...


class Routes:
    """The routes there are, and changing them."""

    def __init__(
        self,
        *,
        rows: RouteRows,
        peers: Callable[[], Sequence[Peer]],
        ourselves: Ourselves,
        audit: AuditTrail,
        zone: tzinfo,
        parsing: Parsing,
    ) -> None:
        self._rows = rows
        self._peers = peers
        self._ourselves = ourselves
        self._audit = audit
        self._zone = zone
        self._parsing = parsing

    def list(self, caller: Caller) -> Sequence[Route]:
        """All routes by name."""
        return self._rows.list()

    def add(self, caller: Caller, route: Route, *, replacing: bool = False) -> None:
        """Add a route; only ``replacing`` changes one of that name.

        Raises ``EntryConflicts`` for what makes no sense, ``DestinationUnknown``.
        """
        self._check([route])
        self._rows.put([route], replacing=replacing)
        self._record("route-changed", caller, route)

    def activate(self, caller: Caller, name: str, *, active: bool) -> None:
        """Let a route hold, or not. Raises ``EntryNotFound``."""
        self._rows.activate(name, active=active)
        self._audit.record("route-enabled" if active else "route-disabled", caller, route=name)

    def remove(self, caller: Caller, name: str) -> int:
        """Remove a route; gives how many jobs in its name have not ended. Raises ``EntryNotFound``."""
        self._rows.remove(name)
        self._audit.record("route-removed", caller, route=name)
        return self.waiting(caller, name)

    def waiting(self, caller: Caller, name: str) -> int:
        """Count the jobs in a route's name that have not ended."""
        return self._rows.waiting(keys_of(name))

    def exported(self, caller: Caller, names: Sequence[str] = ()) -> str:
        """Write all routes, or those named, as JSON. Raises ``EntryNotFound``."""
        routes = {one.name: one for one in self._rows.list()}
        if unknown := [one for one in names if one not in routes]:
            raise EntryNotFound(f"no route is named {unknown[0]}")
        chosen = [form_of(one) for name, one in routes.items() if not names or name in names]
        return json.dumps({"pacs_routes": _VERSION, "routes": chosen}, ensure_ascii=False, indent=1)

    def imported(self, caller: Caller, text: str, *, replacing: bool = False) -> Sequence[Route]:
        """Take in what ``exported`` wrote, all or nothing. Raises ``EntryConflicts``, ``DestinationUnknown``."""
        routes = _read(text)
        names = [one.name for one in routes]
        if len(set(names)) != len(names):
            raise EntryConflicts("two routes of the file have one name")
        self._check(routes)
        self._rows.put(routes, replacing=replacing)
        for one in routes:
            self._record("route-changed", caller, one)
        return routes

    def test(self, caller: Caller, path: Path, provenance: Provenance) -> Sequence[Trial]:
        """Tell what each route would do with a file that arrived so. Raises as ingest does."""
        return tuple(tried(self._rows.list(), sample(path, provenance, self._parsing), self._zone))

    def _check(self, routes: Sequence[Route]) -> None:
        peers: dict[AETitle, Peer] = {one.ae_title: one for one in self._peers()}
        for one in routes:
            check(one, peers, self._ourselves)
            conditions(one, self._zone)

    def _record(self, event: str, caller: Caller, route: Route) -> None:
        self._audit.record(
            event,
            caller,
            route=route.name,
            when=route.level.value,
            destinations=list(route.destinations),
            active=route.active,
        )


def _read(text: str) -> Sequence[Route]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EntryConflicts("the file is no JSON") from error
    forms = said.get("routes") if isinstance(said, dict) else None
    if not isinstance(forms, list) or said.get("pacs_routes") != _VERSION:
        raise EntryConflicts("the file is no export of routes: pacs_routes and routes are needed")
    return [route_of(one) for one in forms]
