"""The documents are true: every command and setting is in them, generated parts are fresh, links lead somewhere."""

import re
from pathlib import Path

import pytest

from config.template import describe
from docs import generate
from pacs.cli.main import COMMANDS

REPOSITORY = Path(__file__).resolve().parents[2]
OPERATIONS = REPOSITORY / "docs" / "operations.md"
PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_is_documented(command: str) -> None:
    assert f"### `pacs {command}`" in OPERATIONS.read_text(encoding="utf-8")


@pytest.mark.parametrize("setting", [one.name for one in describe()])
def test_every_setting_is_documented(setting: str) -> None:
    assert f"| `{setting}` |" in OPERATIONS.read_text(encoding="utf-8")


def test_every_package_is_on_the_map() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert [name for name, _ in generate.packages() if f"| `{name}` |" not in text] == []


@pytest.mark.parametrize("document", generate.DOCUMENTS)
def test_generated_parts_are_fresh(document: str) -> None:
    assert generate.rendered(document) == (REPOSITORY / document).read_text(encoding="utf-8"), (
        "run make docs"
    )


def test_every_generated_part_is_in_a_document() -> None:
    texts = [(REPOSITORY / one).read_text(encoding="utf-8") for one in generate.DOCUMENTS]
    missing = [
        part
        for part in generate.PARTS
        if sum(text.count(f"<!-- generated: {part} -->") for text in texts) != 1
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda one: str(one.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    broken = [
        one
        for one in links
        if not one.startswith(("http://", "https://", "mailto:"))
        and not (page.parent / one).exists()
    ]
    assert broken == []


def test_the_changelog_names_the_version() -> None:
    version = re.search(r'^version = "(.+)"', (REPOSITORY / "pyproject.toml").read_text(), re.M)
    assert version is not None
    assert f"## [{version[1]}]" in (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
