"""Collecting pynetdicom's tests from the installed package: each table here names modules and exceptions.

A table is a TOML file: ``mode`` says what is put in place of what, ``modules``
which of pynetdicom's test modules are run, ``[[unlike]]`` what is known to
fail, and why, and ``[[apart]]`` what is not run at all, and why. Whatever is
not listed must pass; what is listed under ``unlike`` must fail, so that the
list shrinks. Patterns are those of ``fnmatch``, over ``module::Class::test``;
``uses`` sets tests apart that use a name, ``first`` keeps so many cases of each
test that has a great number of them.
"""

import importlib
import os
import socket
import sys
import tomllib
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.upstream import acceptor, checkpoint, requestor

MODES = {"acceptor": acceptor.installed, "requestor": requestor.installed}
TIMEOUT_S = 60


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "serial: pynetdicom's mark of tests that use fixed ports")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.suffix != ".toml":
        return None
    return Table.from_parent(parent, path=file_path)


class Table(pytest.File):
    """One table: a mode and its modules."""

    def collect(self) -> Iterator[pytest.Collector]:
        self.table = tomllib.loads(self.path.read_text())
        for name in self.table["modules"]:
            module = _imported(f"pynetdicom.tests.{name}")
            assert module.__file__ is not None
            place = {"path": Path(module.__file__), "nodeid": f"{self.nodeid}::{name}"}
            one = Theirs.from_parent(self, name=name, **place)
            one.theirs, one.table = module, self.table
            yield one


def _imported(name: str) -> ModuleType:
    """Import as Python does: rewriting the assertions of 20,000 lines takes longer than running them."""
    finders = [one for one in sys.meta_path if type(one).__name__ == "AssertionRewritingHook"]
    for one in finders:
        sys.meta_path.remove(one)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            utils = importlib.import_module("pynetdicom.tests.utils")
            utils.PORTS[os.environ.get("PYTEST_XDIST_WORKER")] = PORTS
            return importlib.import_module(name)
    finally:
        sys.meta_path[:0] = finders


def _free_ports() -> tuple[int, int]:
    """Choose below what the system gives to connections: these tests take the same ports again and again."""
    start = LOWEST_PORT + 2 * os.getpid() % PORTS_TRIED  # another pair for each worker
    free = (port for port in range(start, start + PORTS_TRIED) if _free(port))
    return next(free), next(free)


def _free(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) != 0


LOWEST_PORT, PORTS_TRIED = 20_000, 6_000
PORTS = _free_ports()


class Theirs(pytest.Module):
    """A test module of pynetdicom's, imported as what it is."""

    theirs: ModuleType
    table: dict[str, Any]

    def _getobj(self) -> ModuleType:
        return self.theirs


def _key(item: pytest.Item) -> str:
    """Name a test as the tables do."""
    return item.nodeid.split("::", 1)[1]


def _listed(key: str, entries: Iterable[dict[str, Any]]) -> str | None:
    """Find the reason for which a test is listed."""
    for entry in entries:
        if any(fnmatchcase(key, one) for one in entry.get("tests", ())):
            return str(entry["why"])
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept, apart, seen = [], [], Counter[str]()
    for item in items:
        theirs = item.getparent(Theirs)
        if theirs is None:
            kept.append(item)
        elif _runs(item, theirs.table, seen):
            kept.append(item)
            _mark(item, theirs.table)
        else:
            apart.append(item)
    items[:] = kept
    if apart:
        config.hook.pytest_deselected(items=apart)


def _runs(item: pytest.Item, table: dict[str, Any], seen: Counter[str]) -> bool:
    """Tell whether a test does what the mode replaces, the others would pass without us, and is not apart."""
    assert isinstance(item, pytest.Function)
    names, key = item.function.__code__.co_names, _key(item)
    if table["meets"] and table["meets"] not in names:
        return False
    for entry in table.get("apart", ()):
        if set(entry.get("uses", ())) & set(names):
            return False
        if _listed(key, [entry]):
            test = key.partition("[")[0]
            seen[test] += 1
            if seen[test] > entry.get("first", 0):
                return False
    return True


def _mark(item: pytest.Item, table: dict[str, Any]) -> None:
    item.add_marker(pytest.mark.filterwarnings("ignore"))
    item.add_marker(pytest.mark.timeout(TIMEOUT_S))
    why = _listed(_key(item), table.get("unlike", ()))
    if why is not None:
        item.add_marker(pytest.mark.xfail(strict=True, reason=why))


@pytest.fixture(autouse=True)
def _in_place(request: pytest.FixtureRequest) -> Iterator[None]:
    """Put our side in place for one test of theirs."""
    theirs = request.node.getparent(Theirs)
    if theirs is None or theirs.table["mode"] not in MODES:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        checkpoint.install(patch)
        with MODES[theirs.table["mode"]](patch):
            yield
