"""Settings from pacs.toml and the environment, with the source of each value.

Owns the file's name, the form of the overrides and the exact place of a
mistake. It decides nothing about what a setting means, and it reads the
environment only as it is handed in. This room lies below ``pacs.core``, so its
error is its own; the command line turns it into ``SettingsInvalid``.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from config.settings import Settings

FILE_NAME = "pacs.toml"
PREFIX = "PACS_"
SEPARATOR = "__"
DEFAULT = "default"


class SettingsRefused(ValueError):
    """A setting breaks a rule. The message begins with the place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Settings, those of extensions by table name, and where each value comes from.

    ``sources`` maps ``dicom.port`` to ``default``, ``pacs.toml`` or the name of
    the environment variable.
    """

    settings: Settings = field(default_factory=Settings)
    extensions: Mapping[str, Struct] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


def load(
    home: Path,
    environ: Mapping[str, str],
    extensions: Mapping[str, type[Struct]] | None = None,
) -> Loaded:
    """Read the settings of ``home``: defaults, then pacs.toml, then the environment.

    Raises
    ------
    SettingsRefused
        Something is unknown, malformed or out of its bounds; the message
        begins with the place: ``pacs.toml: $.dicom.prot: …`` or the variable.
    """
    tables = _tables(extensions or {})
    written = _read(home / FILE_NAME)
    _refuse_unknown(written, tables)
    overrides = _overrides(environ, tables)
    built = {
        name: _build(name, struct, written.get(name, {}), overrides.get(name, {}))
        for name, struct in tables.items()
    }
    own = Settings.__struct_fields__
    values: dict[str, Any] = {name: built[name] for name in own}
    return Loaded(
        settings=Settings(**values),
        extensions={name: struct for name, struct in built.items() if name not in own},
        sources=_sources(tables, written, overrides),
    )


def sections(struct: type[Struct] = Settings) -> dict[str, type[Struct]]:
    """Map the name of each table to its struct, in the order they are written."""
    hints = get_type_hints(struct)
    return {name: hints[name] for name in struct.__struct_fields__}


def _tables(extensions: Mapping[str, type[Struct]]) -> dict[str, type[Struct]]:
    tables = sections()
    for name, struct in extensions.items():
        if name in tables:
            raise SettingsRefused(f"extension {name!r}: a table of that name exists already")
        tables[name] = struct
    return tables


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsRefused(f"{FILE_NAME}: {error}") from error
    except OSError as error:
        raise SettingsRefused(f"{FILE_NAME}: {error.strerror}") from error


def _refuse_unknown(written: Mapping[str, Any], tables: Mapping[str, type[Struct]]) -> None:
    for name, table in written.items():
        if name not in tables:
            raise SettingsRefused(f"{FILE_NAME}: $.{name}: no such table")
        if not isinstance(table, dict):
            raise SettingsRefused(f"{FILE_NAME}: $.{name}: expected a table")
        for key in table:
            if key not in tables[name].__struct_fields__:
                raise SettingsRefused(f"{FILE_NAME}: $.{name}.{key}: no such setting")


def variable(table: str, key: str) -> str:
    """Name the environment variable that overrides a setting.

    >>> variable("dicom", "ae_title")
    'PACS_DICOM__AE_TITLE'
    """
    return f"{PREFIX}{table}{SEPARATOR}{key}".upper().replace("-", "_")


def _overrides(
    environ: Mapping[str, str], tables: Mapping[str, type[Struct]]
) -> dict[str, dict[str, Any]]:
    known = {
        variable(table, key): (table, key)
        for table, struct in tables.items()
        for key in struct.__struct_fields__
    }
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(environ):
        if not name.startswith(PREFIX) or SEPARATOR not in name:
            continue
        if name not in known:
            raise SettingsRefused(f"{name}: no such setting")
        table, key = known[name]
        found.setdefault(table, {})[key] = _from_text(name, tables[table], key, environ[name])
    return found


def _from_text(name: str, struct: type[Struct], key: str, text: str) -> object:
    """Turn an override's text into the setting's type; lists are separated by commas."""
    kind = get_type_hints(struct, include_extras=True)[key]
    plain = get_type_hints(struct)[key]
    value: object = text
    if get_origin(plain) in (tuple, list, frozenset):
        value = [part.strip() for part in text.split(",") if part.strip()]
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsRefused(f"{name}: {error}") from error


def _build(
    name: str, struct: type[Struct], written: Mapping[str, Any], overrides: Mapping[str, Any]
) -> Struct:
    try:
        built = msgspec.convert(dict(written), struct)
    except msgspec.ValidationError as error:
        raise SettingsRefused(f"{FILE_NAME}: {_placed(name, str(error))}") from error
    return msgspec.structs.replace(built, **overrides)


def _placed(table: str, message: str) -> str:
    """Put the place before the fault: ``$.dicom.port: Expected `int` <= 65535``."""
    fault, _, place = message.partition(" - at `$")
    return f"$.{table}{place.rstrip('`')}: {fault}"


def _sources(
    tables: Mapping[str, type[Struct]],
    written: Mapping[str, Any],
    overrides: Mapping[str, Mapping[str, Any]],
) -> dict[str, str]:
    sources: dict[str, str] = {}
    for table, struct in tables.items():
        for key in struct.__struct_fields__:
            source = FILE_NAME if key in written.get(table, {}) else DEFAULT
            if key in overrides.get(table, {}):
                source = variable(table, key)
            sources[f"{table}.{key}"] = source
    return sources
