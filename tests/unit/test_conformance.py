"""The conformance statement is fresh, complete and says what the code does."""

import re
from pathlib import Path

import pytest

from config.settings import Settings
from docs import generate
from pacs.app import conformance
from pacs.association.message import Offer, Operation, Request, Response
from pacs.association.sop_classes import STORAGE
from pacs.cli.main import run
from pacs.core import errors
from pacs.core.attributes import INDEXED, UNIQUE_KEYS, Attribute
from pacs.core.caller import Right
from pacs.core.errors import IdentifierInvalid
from pacs.services.find.identifiers import PRIVATE_CREATOR, PRIVATE_GROUP
from pacs.services.find.keys import Rules, matcher_of
from pacs.services.find.matching import Dates, Exactly, Instants, Times
from scp import retrieve, store
from scp.service_class import ServiceClass
from scu.status import MEANINGS, meaning
from storage.instances.part10 import PRIVATE_INFORMATION_CREATOR_UID

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"
RULES = Rules(fuzzy=False, offset_minutes=None, max_uids=10)


@pytest.fixture(scope="module")
def statement() -> str:
    return conformance.statement(())


def test_the_document_is_the_generated_text(statement: str) -> None:
    assert statement.strip() in DOCUMENT.read_text(encoding="utf-8"), "run make docs"
    assert generate.rendered("docs/conformance.md") == DOCUMENT.read_text(encoding="utf-8")


def test_the_command_prints_it(statement: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["conformance", "--format", "markdown"]) == 0
    assert capsys.readouterr().out == statement


def test_it_depends_on_no_settings_of_the_machine(
    statement: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PACS_DICOM__AE_TITLE", "ELSEWHERE")
    monkeypatch.setenv("PACS_HOME", str(tmp_path / "none"))
    assert conformance.statement(()) == statement
    assert not (tmp_path / "none").exists()


def test_every_sop_class_and_status_is_in_it(statement: str) -> None:
    assert [uid for uid in STORAGE if f"`{uid}`" not in statement] == []
    for table in (store.STATUSES, retrieve.STATUSES):
        for error, number in table.items():
            assert f"| 0x{number:04X} | " in statement
            assert error.peer_comment in statement


@pytest.mark.parametrize("one", INDEXED, ids=lambda one: one.keyword)
def test_every_key_is_in_it_with_its_matching(statement: str, one: Attribute) -> None:
    unique = " (unique key)" if one.keyword in UNIQUE_KEYS.values() else ""
    row = f"| `{one.keyword}`{unique} | ({one.tag >> 16:04X},{one.tag & 0xFFFF:04X}) | {one.vr} | "
    assert row + conformance.MATCHING[one.vr] in statement


SINGLE = {"DA": "20240101", "TM": "1015", "DT": "20240101", "UI": "1.2.3", "AS": "030Y"}


@pytest.mark.parametrize("vr", sorted({one.vr for one in INDEXED} - {"SQ"}))
def test_the_kinds_of_matching_are_those_of_the_code(vr: str) -> None:
    said = conformance.MATCHING[vr]
    value = SINGLE.get(vr, "1")
    assert matcher_of(vr, value, 0x00100010, RULES) is not None
    assert ("wild card" in said) == takes(vr, f"{value}*")
    ranged = matcher_of(vr, f"{value}-", 0x00100010, RULES) if vr in ("DA", "TM", "DT") else None
    assert ("range" in said) == isinstance(ranged, (Dates, Times, Instants))
    listed = matcher_of(vr, f"{value}\\{value}9", 0x00100010, RULES) if "list" in said else None
    assert ("list" in said) == (isinstance(listed, Exactly) and len(listed.values) == 2)


def takes(vr: str, value: str) -> bool:
    """Tell whether a key of that VR may have wild cards."""
    try:
        return matcher_of(vr, value, 0x00100010, RULES) is not None
    except IdentifierInvalid:
        return False


def test_what_is_private_is_named_as_the_code_names_it(statement: str) -> None:
    assert f"`{PRIVATE_CREATOR}` in group {PRIVATE_GROUP:04X}" in statement
    assert PRIVATE_INFORMATION_CREATOR_UID in statement


@pytest.mark.parametrize(
    "rule",
    [
        "without regard to case, accents",
        "cut off where it would exceed 64 KiB",
        "two persons are never delivered as one",
        "kept as a further version",
        "synthetic Study and Series Instance UIDs",
        "not kept twice",
        "never replaced, merged or revealed",
        "An unknown (empty) value of a Required Key matches nothing",
    ],
)
def test_the_rules_stand_in_it(statement: str, rule: str) -> None:
    assert rule in " ".join(statement.split())


def test_a_service_that_is_attached_documents_itself() -> None:
    class Refused(errors.PacsError):
        """The film is too small."""

        peer_comment = "Film too small"

    def handle(_request: Request) -> "list[Response]":
        return []

    attached = ServiceClass(
        name="Film",
        standard="PS3.4 Annex H",
        offers=(
            Offer(
                sop_classes={"1.2.3.4": "Film SOP Class"}, transfer_syntaxes=("1.2.840.10008.1.2",)
            ),
        ),
        operations={Operation.N_CREATE: lambda request: iter(handle(request))},
        rights={Operation.N_CREATE: Right.PRINT},
        statuses={Refused: 0xC616},
    )
    text = conformance.rendered([attached], Settings())
    assert "### Film (PS3.4 Annex H) as SCP" in text
    assert "| Film SOP Class | `1.2.3.4` |" in text
    assert "| N-CREATE | print |" in text
    assert "| 0xC616 | see the service | The film is too small. | Film too small |" in text


def test_no_cell_is_broken(statement: str) -> None:
    tables = re.findall(r"(?:^\|.*\|\n)+", statement, re.M)
    assert tables
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table[:200]


@pytest.mark.parametrize("operation", MEANINGS, ids=lambda one: one.value)
def test_statuses_of_peers_have_one_meaning(operation: Operation) -> None:
    covered: set[int] = set()
    for low, high, words in MEANINGS[operation]:
        assert low <= high
        assert words
        assert not covered & set(range(low, high + 1))
        covered |= set(range(low, high + 1))
        assert meaning(operation, low) == meaning(operation, high) == words
    assert meaning(operation, 0x0000) == ""
