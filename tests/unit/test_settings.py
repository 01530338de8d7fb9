"""Settings: defaults, file, environment, and a mistake is always named by its place."""

from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from config.load import DEFAULT, FILE_NAME, SettingsRefused, load, sections, variable
from config.settings import Section, Settings
from config.template import describe, masked, template
from tests.keeping import NO_CHORES


class Radar(Section, frozen=True, kw_only=True):
    """An extension's table."""

    range_m: Annotated[int, msgspec.Meta(ge=1, description="How far it sees")] = 5
    names: tuple[str, ...] = ()


def write(home: Path, text: str) -> Path:
    (home / FILE_NAME).write_text(text, encoding="utf-8")
    return home


def test_a_home_without_a_file_has_the_defaults(tmp_path: Path) -> None:
    loaded = load(tmp_path, {})
    assert loaded.settings == Settings()
    assert set(loaded.sources.values()) == {DEFAULT}
    assert set(loaded.sources) == {one.name for one in describe()}


def test_each_value_knows_its_source(tmp_path: Path) -> None:
    write(tmp_path, '[dicom]\nport = 104\nae_title = "FILE"\n')
    loaded = load(tmp_path, {"PACS_DICOM__AE_TITLE": "VARIABLE", "PATH": "/bin", "PACS_HOME": "x"})
    assert (loaded.settings.dicom.port, loaded.settings.dicom.ae_title) == (104, "VARIABLE")
    assert loaded.sources["dicom.port"] == FILE_NAME
    assert loaded.sources["dicom.ae_title"] == "PACS_DICOM__AE_TITLE"
    assert loaded.sources["dicom.host"] == DEFAULT


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[dicom]\nprot = 1\n", "pacs.toml: $.dicom.prot: "),
        ("[dycom]\nport = 1\n", "pacs.toml: $.dycom: "),
        ("dicom = 1\n", "pacs.toml: $.dicom: expected a table"),
        ("[dicom]\nport = 70000\n", "pacs.toml: $.dicom.port: Expected `int` <= 65535"),
        ('[dicom]\nport = "104"\n', "pacs.toml: $.dicom.port: Expected `int`"),
        ('[dicom]\nae_title = "SEVENTEEN LETTERS"\n', "pacs.toml: $.dicom.ae_title: "),
        ('[dicom]\ntransfer_syntax_order = ["x"]\n', "pacs.toml: $.dicom.transfer_syntax_order[0]"),
        ("[dicom\n", "pacs.toml: "),
    ],
)
def test_a_mistake_in_the_file_is_named_by_its_place(tmp_path: Path, text: str, place: str) -> None:
    with pytest.raises(SettingsRefused) as refused:
        load(write(tmp_path, text), {})
    assert str(refused.value).startswith(place)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PACS_DICOM__PROT", "1"),
        ("PACS_DYCOM__PORT", "1"),
        ("PACS_DICOM__PORT", "seventy"),
        ("PACS_DICOM__PORT", "-1"),
        ("PACS_LOGGING__LEVEL", "loud"),
    ],
)
def test_a_mistake_in_the_environment_is_named_by_its_variable(
    tmp_path: Path, name: str, value: str
) -> None:
    with pytest.raises(SettingsRefused, match=f"^{name}: "):
        load(tmp_path, {name: value})


def test_an_override_is_read_as_the_type_of_its_setting(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        {
            "PACS_DICOM__AE_TITLE": "104",
            "PACS_DICOM__LOOPBACK_TRUST": "false",
            "PACS_ASSOCIATION__ARTIM_TIMEOUT_S": "2.5",
            "PACS_DICOM__TRANSFER_SYNTAX_ORDER": "lossless, implicit",
        },
    )
    assert loaded.settings.dicom.ae_title == "104"
    assert loaded.settings.dicom.loopback_trust is False
    assert loaded.settings.association.artim_timeout_s == 2.5
    assert loaded.settings.dicom.transfer_syntax_order == ("lossless", "implicit")


def test_an_extension_has_a_table_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "[radar]\nrange_m = 7\n")
    loaded = load(tmp_path, {"PACS_RADAR__NAMES": "a,b"}, {"radar": Radar})
    assert loaded.extensions["radar"] == Radar(range_m=7, names=("a", "b"))
    assert loaded.sources["radar.range_m"] == FILE_NAME
    with pytest.raises(SettingsRefused, match=r"\$\.radar: no such table"):
        load(tmp_path, {})
    with pytest.raises(SettingsRefused, match="dicom"):
        load(tmp_path, {}, {"dicom": Radar})


def test_the_written_template_changes_nothing_and_each_line_of_it_is_valid(tmp_path: Path) -> None:
    assert load(write(tmp_path, template()), {}).settings == Settings()
    uncommented = [
        line.removeprefix("# ") if " = " in line and line.startswith("# ") else line
        for line in template().splitlines()
    ]
    loaded = load(write(tmp_path, "\n".join(uncommented)), {})
    assert loaded.settings == Settings()
    assert set(loaded.sources.values()) == {FILE_NAME}


def test_every_setting_is_described_and_has_a_variable() -> None:
    described = list(describe())
    assert [one.name for one in described if not one.description] == []
    variables = {variable(one.table, one.key) for one in described}
    assert len(variables) == len(described)
    assert all(struct.__doc__ for struct in sections().values())


def test_the_tests_know_every_chore() -> None:
    chores = {f"{one.table}__{one.key}" for one in describe() if one.key.endswith("_cron")}
    assert chores == NO_CHORES.keys()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("", ""),
        (5, 5),
        ("postgresql://db/pacs", "postgresql://db/pacs"),
        ("postgresql://u@db/pacs", "postgresql://u@db/pacs"),
        ("postgresql://u:p@ss:w@db:5/pacs", "postgresql://u:***@db:5/pacs"),
        ("postgresql://db/pacs?password=x", "postgresql://db/pacs?***"),
    ],
)
def test_a_password_is_never_shown(value: object, shown: object) -> None:
    assert masked(value) == shown
