"""The settings described: the pacs.toml that ``pacs init`` writes and the rows of the docs.

Owns the wording of types, bounds and values. Everything it says is read from
the structs; nothing is written twice.
"""

import json
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit, urlunsplit

from msgspec import NODEFAULT, Meta, Struct, structs

from config.load import sections

_UNITS = {"_s": "seconds", "_bytes": "bytes", "_mm": "millimetres", "_rows": "rows"}
_OPENING = """\
# Settings of this archive. What is commented out has its default.
# Each can be overridden by an environment variable: PACS_<TABLE>__<KEY>.
# A change takes effect when the server starts again.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One setting in words: its place, what it is for, what it accepts, what it is without you."""

    table: str
    key: str
    description: str
    accepts: str
    default: str

    @property
    def name(self) -> str:
        """Its name in messages and tables: ``dicom.port``."""
        return f"{self.table}.{self.key}"


def describe(tables: Mapping[str, type[Struct]] | None = None) -> Iterator[Described]:
    """Describe every setting, in the order of the structs."""
    for table, struct in (sections() if tables is None else tables).items():
        hints = get_type_hints(struct, include_extras=True)
        for field in structs.fields(struct):
            metas = list(_metas(hints[field.name]))
            yield Described(
                table=table,
                key=field.name,
                description=next((one.description for one in metas if one.description), ""),
                accepts=_accepts(field.name, hints[field.name], metas),
                default=_default(field),
            )


def template(tables: Mapping[str, type[Struct]] | None = None) -> str:
    """Write a pacs.toml in which every key stands, commented out, with its default."""
    chosen = sections() if tables is None else tables
    lines = [_OPENING]
    for table, struct in chosen.items():
        lines.append(f"[{table}]  # {_first_line(struct)}")
        for one in describe({table: struct}):
            lines.append(f"# {one.description} ({one.accepts})")
            lines.append(f"# {one.key} = {one.default}")
        lines.append("")
    return "\n".join(lines)


def as_toml(value: object) -> str:
    """Write a value as TOML does; JSON's strings, numbers, booleans and arrays are TOML's too."""
    return json.dumps(value, ensure_ascii=False)


def masked(value: object) -> object:
    """Hide the password of a URL.

    >>> masked("postgresql://pacs:secret@db/pacs")
    'postgresql://pacs:***@db/pacs'
    """
    if not isinstance(value, str) or "://" not in value:
        return value
    try:
        parts = urlsplit(value)
    except ValueError:
        return "***"  # no URL at all, and perhaps a password
    credentials, at, host = parts.netloc.rpartition("@")
    user, colon, _ = credentials.partition(":")
    netloc = f"{user}{':***' if colon else ''}{at}{host}"
    query = "***" if "password" in parts.query.lower() else parts.query
    return urlunsplit((parts.scheme, netloc, parts.path, query, parts.fragment))


def _first_line(struct: type[Struct]) -> str:
    return (struct.__doc__ or "").strip().partition("\n")[0]


def _metas(hint: Any) -> Iterator[Meta]:
    """Yield the annotations of a type, outermost first."""
    if get_origin(hint) is Annotated:
        inner, *outer = get_args(hint)
        yield from (one for one in reversed(outer) if isinstance(one, Meta))
        yield from _metas(inner)


def _bare(hint: Any) -> Any:
    return _bare(get_args(hint)[0]) if get_origin(hint) is Annotated else hint


def _accepts(key: str, hint: Any, metas: list[Meta]) -> str:
    parts = [_type_words(_bare(hint))]
    unit = next((word for ending, word in _UNITS.items() if key.endswith(ending)), None)
    if unit:
        parts.append(unit)
    parts.extend(filter(None, (_bounds(one) for one in metas)))
    return ", ".join(parts)


def _type_words(bare: Any) -> str:
    origin = get_origin(bare)
    if origin is Literal:
        return " | ".join(as_toml(one) for one in get_args(bare))
    if origin in (tuple, list, frozenset):
        return f"list of {_type_words(_bare(get_args(bare)[0]))}"
    if origin in (Union, types.UnionType):
        return " or ".join(_type_words(_bare(one)) for one in get_args(bare))
    words = {int: "integer", float: "number", str: "text", bool: "true | false"}
    return words.get(bare, getattr(bare, "__name__", str(bare)))


def _bounds(meta: Meta) -> str:
    words = []
    if meta.ge is not None or meta.gt is not None:
        words.append(f"from {meta.ge}" if meta.ge is not None else f"above {meta.gt}")
    if meta.le is not None or meta.lt is not None:
        words.append(f"to {meta.le}" if meta.le is not None else f"below {meta.lt}")
    if meta.max_length is not None:
        words.append(f"at most {meta.max_length} characters")
    return " ".join(words)


def _default(field: structs.FieldInfo) -> str:
    if field.default is not NODEFAULT:
        return as_toml(field.default)
    if field.default_factory is not NODEFAULT:
        return as_toml(field.default_factory())
    return "required"
