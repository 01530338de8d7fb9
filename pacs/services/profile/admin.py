"""What an administrator does with profiles; each change is checked whole, and on record."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from pacs.core.caller import Caller
from pacs.core.errors import EntryConflicts, EntryNotFound
from pacs.core.identifiers import AETitle
from pacs.core.ports import AuditTrail
from pacs.core.processing import OperationFact, ProcessingOrder, Profile
from pacs.core.profile_form import form_of, profile_of
from pacs.core.records import Peer
from pacs.services.profile.checks import check
from pacs.services.route.checks import Ourselves

_VERSION = 1


class ProfileRows(Protocol):
    """Where profiles are kept; see ``storage.database.profile``."""

    def list(self) -> Sequence[Profile]: ...
    def put(self, profiles: Sequence[Profile], *, replacing: bool) -> None: ...
    def activate(self, ae_title: AETitle, *, active: bool) -> None: ...
    def remove(self, ae_title: AETitle) -> None: ...


class Profiles:
    """The profiles there are, and changing them."""

    def __init__(
        self,
        *,
        rows: ProfileRows,
        peers: Callable[[], Sequence[Peer]],
        checked: Callable[[ProcessingOrder], OperationFact],
        ourselves: Ourselves,
        audit: AuditTrail,
    ) -> None:
        """``checked`` raises ``ProcessingUnknown`` for what cannot be computed here."""
        self._rows = rows
        self._peers = peers
        self._checked = checked
        self._ourselves = ourselves
        self._audit = audit

    def list(self, caller: Caller) -> Sequence[Profile]:
        """All profiles by AE title."""
        return self._rows.list()

    def add(self, caller: Caller, profile: Profile, *, replacing: bool = False) -> None:
        """Add a profile; only ``replacing`` changes one of that AE title.

        Raises ``EntryConflicts`` for what makes no sense, ``DestinationUnknown``, ``ProcessingUnknown``.
        """
        self._check([profile])
        self._rows.put([profile], replacing=replacing)
        self._record(caller, profile)

    def activate(self, caller: Caller, ae_title: str, *, active: bool) -> None:
        """Let a profile hold, or not. Raises ``EntryNotFound``."""
        self._rows.activate(AETitle(ae_title), active=active)
        event = "profile-enabled" if active else "profile-disabled"
        self._audit.record(event, caller, profile=ae_title)

    def remove(self, caller: Caller, ae_title: str) -> None:
        """Remove a profile; what was asked for already is done. Raises ``EntryNotFound``."""
        self._rows.remove(AETitle(ae_title))
        self._audit.record("profile-removed", caller, profile=ae_title)

    def exported(self, caller: Caller, ae_titles: Sequence[str] = ()) -> str:
        """Write all profiles, or those named, as JSON. Raises ``EntryNotFound``."""
        profiles: Mapping[str, Profile] = {one.ae_title: one for one in self._rows.list()}
        if unknown := [one for one in ae_titles if one not in profiles]:
            raise EntryNotFound(f"no profile is named {unknown[0]}")
        chosen = [
            form_of(one) for name, one in profiles.items() if not ae_titles or name in ae_titles
        ]
        said = {"pacs_profiles": _VERSION, "profiles": chosen}
        return json.dumps(said, ensure_ascii=False, indent=1)

    def imported(self, caller: Caller, text: str, *, replacing: bool = False) -> Sequence[Profile]:
        """Take in what ``exported`` wrote, all or nothing. Raises as ``add``."""
        profiles = _read(text)
        if len({one.ae_title for one in profiles}) != len(profiles):
            raise EntryConflicts("two profiles of the file have one AE title")
        self._check(profiles)
        self._rows.put(profiles, replacing=replacing)
        for one in profiles:
            self._record(caller, one)
        return profiles

    def _check(self, profiles: Sequence[Profile]) -> None:
        peers = {one.ae_title: one for one in self._peers()}
        for one in profiles:
            check(one, peers, self._ourselves)
            self._checked(one.order)

    def _record(self, caller: Caller, profile: Profile) -> None:
        order = profile.order
        self._audit.record(
            "profile-changed",
            caller,
            profile=profile.ae_title,
            operation=order.operation,
            version=order.version,
            destinations=list(order.destinations),
            to_sender=profile.asker,
            keep_results=order.keep_results.value,
            keep_sources=profile.keep_sources.value,
            active=profile.active,
        )


def _read(text: str) -> Sequence[Profile]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EntryConflicts("the file is no JSON") from error
    forms = said.get("profiles") if isinstance(said, dict) else None
    if not isinstance(forms, list) or said.get("pacs_profiles") != _VERSION:
        raise EntryConflicts(
            "the file is no export of profiles: pacs_profiles and profiles are needed"
        )
    return [profile_of(one) for one in forms]
