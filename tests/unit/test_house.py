"""The house keeps its own rules: docstrings, size, doors, floors, settings that are read."""

import ast
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from config.template import describe

REPOSITORY = Path(__file__).resolve().parents[2]
ROOMS = ("pacs", "scp", "scu", "storage", "processing", "config")
OURS = {*ROOMS, "tests", "docs", "bench"}

MAX_FILE_LINES = 400
MAX_TEST_FILE_LINES = 600
MAX_FUNCTION_LINES = 50

# What exceeds the norm, by name. These lists only shrink: a name that is no longer too long
# fails too, and none is added without the word of whoever keeps the house.
LONG_FILES: frozenset[str] = frozenset()
LONG_FUNCTIONS: frozenset[str] = frozenset()

DOORS: Mapping[str, tuple[str, ...]] = {
    "apscheduler": ("pacs.jobs",),
    "blake3": ("storage", "tests.contracts"),
    "cryptography": (
        "pacs.services",
        "pacs.association",
        "pacs.app",
        "pacs.cli",
        "tests",
    ),
    "click": ("pacs.cli", "docs", "tests.unit"),
    "dramatiq": ("pacs.jobs",),
    "hypothesis": ("tests",),
    "imagecodecs": ("processing", "tests"),
    "jwt": ("pacs.services", "tests"),
    "jpeg_ls": ("processing",),
    "libjpeg": (),
    "msgspec": ("config", "pacs.app", "pacs.cli", "pacs.jobs", "tests"),
    "numpy": ("processing", "tests", "bench"),
    "openjpeg": ("processing",),
    "peewee": ("storage.database", "tests"),
    "playhouse": ("storage.database",),
    "prometheus_client": ("pacs.observe.metrics",),
    "psycopg": ("storage.database", "tests"),
    "psycopg_pool": ("storage.database",),
    "pydicom": ("pacs", "scp", "scu", "storage", "processing", "docs", "bench", "tests"),
    "pylibjpeg": ("processing", "tests"),
    "pynetdicom": ("pacs.association", "bench", "tests"),
    "pytest": ("tests",),
    "rich": ("pacs.cli",),
    "rle": ("processing",),
    "scipy": ("processing", "tests"),
    "skimage": ("processing", "tests"),
    "trustme": ("tests", "bench"),
    "structlog": ("pacs", "scp", "scu", "storage", "processing", "tests"),
}
"""Third-party library → the rooms that may name it."""


@cache
def files() -> tuple[Path, ...]:
    return tuple(
        sorted(
            one.relative_to(REPOSITORY)
            for folder in OURS
            for one in (REPOSITORY / folder).rglob("*.py")
        )
    )


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))


def lines_of(path: Path) -> list[str]:
    return (REPOSITORY / path).read_text(encoding="utf-8").splitlines()


def module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield f"{path}:{node.name}", node


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    assert node.end_lineno is not None
    length = node.end_lineno - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node) is not None and first.end_lineno is not None:
        length -= first.end_lineno - first.lineno + 1
    return length


def test_every_module_says_what_it_owns() -> None:
    assert [str(one) for one in files() if not ast.get_docstring(tree(one))] == []


def test_no_file_outgrows_its_idea() -> None:
    long = {
        str(one)
        for one in files()
        if len(lines_of(one)) > (MAX_TEST_FILE_LINES if one.parts[0] == "tests" else MAX_FILE_LINES)
    }
    assert long == LONG_FILES


def test_no_function_outgrows_its_name() -> None:
    long = {
        name
        for one in files()
        for name, node in functions(one)
        if body_lines(node) > MAX_FUNCTION_LINES
    }
    assert long == LONG_FUNCTIONS


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (one.name.partition(".")[0] for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def behind_its_door(library: str, path: Path) -> bool:
    name = module_name(path) + "."
    return any(name.startswith(f"{door}.") for door in DOORS.get(library, ()))


def test_every_library_is_behind_its_door() -> None:
    trespassers = sorted(
        f"{path}: {library}"
        for path in files()
        for library in set(imports(path)) - OURS - sys.stdlib_module_names
        if not behind_its_door(library, path)
    )
    assert trespassers == []


def test_every_dependency_is_used_or_is_a_plug_in() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=\[;]", one)[0] for one in project["dependencies"]}
    plug_ins = {"pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle"}
    shipped = [path for path in files() if path.parts[0] in ROOMS]
    used = {library for path in shipped for library in imports(path)}
    imported_as = {"jpeg_ls": "pyjpegls", "jwt": "pyjwt", "skimage": "scikit_image"}
    used |= {name for module, name in imported_as.items() if module in used}
    assert {one.replace("-", "_") for one in declared - plug_ins} - used == set()


def floors() -> set[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    (contract,) = (
        one for one in project["tool"]["importlinter"]["contracts"] if one["id"] == "floors"
    )
    return {room.strip(" ()") for layer in contract["layers"] for room in layer.split("|")}


def test_every_room_has_a_floor() -> None:
    """A room in pacs/ that no layer names would be free to import anything."""
    in_pacs = {
        f"pacs.{one.stem}"
        for one in (REPOSITORY / "pacs").iterdir()
        if (one.is_dir() and (one / "__init__.py").exists())
        or (one.suffix == ".py" and one.stem != "__init__")
    }
    assert in_pacs - floors() == set()
    assert set(ROOMS) - {"pacs"} - floors() == set()


def test_the_roof_is_a_docstring_only() -> None:
    (only,) = tree(Path("pacs/__init__.py")).body
    assert isinstance(only, ast.Expr)


def test_every_folder_with_code_is_a_package() -> None:
    bare = sorted(
        {
            str(one.parent)
            for one in files()
            if one.parts[0] in ROOMS
            and one.parent.name != "migrations"
            and not (REPOSITORY / one.parent / "__init__.py").exists()
        }
    )
    assert bare == []


def test_only_the_listed_packages_ship() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert tuple(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == ROOMS


@cache
def attributes_read() -> frozenset[str]:
    """Names of attributes read anywhere in shipped code outside config."""
    return frozenset(
        node.attr
        for path in files()
        if path.parts[0] in ROOMS and path.parts[0] != "config"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute)
    )


@pytest.mark.parametrize("setting", [one.name for one in describe()])
def test_every_setting_is_read_somewhere(setting: str) -> None:
    assert setting.partition(".")[2] in attributes_read()


def comments(path: Path) -> Iterator[tuple[int, str]]:
    with (REPOSITORY / path).open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string


def test_every_exemption_has_a_reason() -> None:
    """``# noqa: X - reason`` and ``# type: ignore[x]  # reason``."""
    exemption = re.compile(r"#\s*(noqa|type:\s*ignore)")
    reasoned = re.compile(r"#\s*(noqa: [A-Z0-9, ]+|type: ignore\[[a-z, -]+\])\s*(-|#)\s*\w+")
    bare = [
        f"{path}:{line}"
        for path in files()
        if path.parts[0] in ROOMS
        for line, text in comments(path)
        if exemption.search(text) and not reasoned.search(text)
    ]
    assert bare == []


def test_nothing_is_left_for_later() -> None:
    """A marker of unfinished work, or a module that only pretends."""
    later = re.compile(
        r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]) + r")\b"
    )
    marked = [
        f"{path}:{line}" for path in files() for line, text in comments(path) if later.search(text)
    ]
    stubs = [
        f"{path}:{node.lineno}"
        for path in files()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Raise) and "NotImplemented" in ast.unparse(node)
    ]
    assert marked + stubs == []
