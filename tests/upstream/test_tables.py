"""The tables name tests that exist, so that none outlives what it excuses."""

import importlib
import tomllib
import warnings
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

TABLES = sorted(Path(__file__).parent.glob("*.toml"))


def _tests(module: str) -> set[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = importlib.import_module(f"pynetdicom.tests.{module}")
    return {
        f"{module}::{name}::{test}"
        for name, one in vars(found).items()
        if isinstance(one, type) and name.startswith("Test")
        for test in vars(one)
        if test.startswith("test_")
    }


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_every_pattern_names_tests_of_pynetdicom(path: Path) -> None:
    table = tomllib.loads(path.read_text())
    every = set[str]().union(*map(_tests, table["modules"]))
    listed = [
        one
        for entry in (*table.get("apart", ()), *table.get("unlike", ()))
        for one in entry.get("tests", ())
    ]
    unused = [one for one in listed if not any(fnmatchcase(test, one) for test in every)]
    assert every
    assert unused == []


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_every_exception_has_a_reason(path: Path) -> None:
    table = tomllib.loads(path.read_text())
    entries = (*table.get("apart", ()), *table.get("unlike", ()))
    assert all(entry["why"] and (entry.get("tests") or entry["uses"]) for entry in entries)
