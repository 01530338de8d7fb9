"""How a service is attached: one frozen value, in the same form for ours and for plug-ins.

``Extension`` is what is attached, ``Attached`` what it gives once it knows the
archive. Entry points of the group ``pacs.extensions`` name further
``Extension`` values; no other way to load a plug-in exists.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pacs.core.caller import Caller
from pacs.core.errors import SettingsInvalid
from pacs.core.ports import ArrivalRule, RepeatRule
from pacs.jobs.kinds import JobKind, Schedule
from scp.service_class import ServiceClass

if TYPE_CHECKING:
    from pacs.app.archive import Archive

GROUP = "pacs.extensions"


class NoSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """For an extension that has nothing to set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """What an extension gives to one process.

    ``admission`` is asked about every caller the gate admits, and gives the
    reason for a refusal or ``None``. It goes into the audit trail, never to
    the peer. ``on_repeat`` is asked instead of ``on_arrival`` about what is held already. ``jobs`` maps a kind to its idempotent handler; kinds are named
    ``extension.verb`` and nobody else's. ``schedules`` are asked for as long as
    the process runs; ``schedules_now`` is called about once a second by every
    worker for those that change meanwhile, so it answers from a ``Snapshot``.
    """

    service_classes: tuple[ServiceClass, ...] = ()
    admission: Callable[[Caller], str | None] = lambda _: None
    on_arrival: tuple[ArrivalRule, ...] = ()
    on_repeat: tuple[RepeatRule, ...] = ()
    jobs: Mapping[str, JobKind] = field(default_factory=dict)
    schedules: tuple[Schedule, ...] = ()
    schedules_now: Callable[[], Sequence[Schedule]] = lambda: ()
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """What can be attached.

    ``settings`` describes its table in pacs.toml. ``migrations`` is a folder
    of numbered scripts whose tables begin with the extension's name.
    ``commands`` maps a command's name to ``module:command``. ``operations``
    name further operations on images as ``module:ATTRIBUTE``, each a
    ``processing.operations.operation.Operation``; they run in the sandbox,
    which imports them by that name. ``attach`` is called once per process.
    """

    name: str
    attach: Callable[["Archive", Any], Attached]
    settings: type[Struct] = NoSettings
    migrations: Path | None = None
    commands: Mapping[str, str] = field(default_factory=dict)
    operations: tuple[str, ...] = ()


def installed() -> tuple[Extension, ...]:
    """Load the extensions that other distributions offer. Raises ``SettingsInvalid``."""
    found: dict[str, Extension] = {}
    for entry in entry_points(group=GROUP):
        try:
            extension = entry.load()
        except (ImportError, AttributeError) as error:
            raise SettingsInvalid(f"plug-in {entry.name} cannot be loaded: {error}") from error
        if not isinstance(extension, Extension):
            raise SettingsInvalid(f"plug-in {entry.name} is not a pacs Extension")
        if extension.name in found:
            raise SettingsInvalid(f"two plug-ins are named {extension.name}")
        found[extension.name] = extension
    return tuple(found.values())
