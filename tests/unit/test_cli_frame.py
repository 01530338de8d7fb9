"""The command line's frame: codes, one line per error, lists and progress."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from config.load import FILE_NAME
from pacs.cli import exits, main, output
from pacs.core import errors


def all_errors(base: type[errors.PacsError] = errors.PacsError) -> list[type[errors.PacsError]]:
    return [base, *(one for child in base.__subclasses__() for one in all_errors(child))]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Put a command in place that raises what the test lays down."""
    laid: list[BaseException] = []

    @click.command()
    def fail() -> None:
        raise laid[0]

    monkeypatch.setattr(main.Commands, "get_command", lambda *_: fail)
    return laid


@pytest.mark.parametrize("kind", all_errors())
def test_every_error_ends_in_one_line_and_a_code_that_is_documented(
    kind: type[errors.PacsError],
    failing: list[BaseException],
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing.append(kind("what\nhappened"))
    code = main.run(["fail"])
    written = capsys.readouterr()
    assert code in exits.MEANINGS
    assert code != exits.DONE
    assert written.out == ""
    assert written.err.startswith("pacs: what happened")
    assert written.err.count("\n") == 1


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (errors.PeerRefused(), 4),
        (errors.PeerUnreachable(), 5),
        (errors.InstanceCorrupt(), 3),
        (errors.SettingsInvalid("x"), 2),
        (errors.StorageFailed(), 1),
        (click.UsageError("x"), 2),
        (click.exceptions.Exit(3), 3),
        (click.Abort(), 1),
        (KeyboardInterrupt(), 1),
        (RuntimeError("a\nb"), 1),
    ],
)
def test_the_codes_are_the_contract(
    raised: BaseException, code: int, failing: list[BaseException]
) -> None:
    failing.append(raised)
    assert main.run(["fail"]) == code


def test_a_trace_is_shown_only_when_debugging(
    failing: list[BaseException],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing.append(RuntimeError("broken"))
    main.run(["fail"])
    assert capsys.readouterr().err == "pacs: unexpected RuntimeError: broken\n"
    monkeypatch.setenv("PACS_LOGGING__LEVEL", "debug")
    main.run(["fail"])
    assert "Traceback" in capsys.readouterr().err


def test_an_unknown_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["nonsense"]) == exits.USAGE
    assert "nonsense" in capsys.readouterr().err


def test_help_names_every_command_and_imports_none() -> None:
    script = (
        "import sys; from pacs.cli.main import run; run(['--help']);"
        "print([one for one in ('pynetdicom', 'pydicom', 'peewee', 'numpy') if one in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    *_, imported = done.stdout.splitlines()
    assert imported == "[]"
    assert all(f"  {name} " in done.stdout for name in main.COMMANDS)


@pytest.mark.parametrize("name", sorted(main.COMMANDS))
def test_every_command_is_there_and_explains_itself(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run([name, "--help"]) == exits.DONE
    assert f"pacs {name}" in capsys.readouterr().out


def test_a_list_in_a_pipe_is_lines_without_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows: list[dict[str, object]] = [{"a": "x\ty\x1b[2J", "b": None}, {"a": "Größe", "b": 3}]
    output.emit(iter(rows), ["a", "b"])
    assert capsys.readouterr().out == "x\\ty\\x1b[2J\t\nGröße\t3\n"


@pytest.mark.parametrize("rows", [[], [{"a": "1"}], [{"a": "ä\x1b"}, {"a": None}]])
def test_a_list_as_json_is_an_array(
    rows: list[dict[str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    output.emit(iter(rows), ["a"], as_json=True)
    written = capsys.readouterr().out
    assert json.loads(written) == rows
    assert "\x1b" not in written


def test_a_list_on_a_terminal_is_a_table_that_takes_no_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    output.emit([{"name": "[red]DOE^JANE"}], ["name"])
    written = capsys.readouterr().out
    assert "[red]DOE^JANE" in written
    assert "name" in written


def test_progress_without_a_terminal_is_a_line_at_each_tenth(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with output.progress(20, "send") as advance:
        for _ in range(20):
            advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "send: 2 of 20"
    assert lines[-1] == "send: 20 done"
    assert len(lines) == 11


def pacs(home: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pacs.cli.main", "--home", str(home), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environ},
    )


def test_config_show_tells_each_source_and_hides_the_password(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('[database]\nurl = "postgresql://u:secret@h/d"\n')
    done = pacs(tmp_path, "config", "show", "--json", PACS_DICOM__PORT="104")
    shown = {row["setting"]: row for row in json.loads(done.stdout)}
    assert shown["dicom.port"] == {
        "setting": "dicom.port",
        "value": 104,
        "source": "PACS_DICOM__PORT",
    }
    assert shown["database.url"]["value"] == "postgresql://u:***@h/d"
    assert shown["database.url"]["source"] == FILE_NAME
    assert shown["dicom.host"]["source"] == "default"
    assert "secret" not in done.stdout


def test_a_wrong_setting_is_said_in_one_line_with_its_place(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("[dicom]\nprot = 1\n")
    done = pacs(tmp_path, "config", "show")
    assert done.returncode == exits.USAGE
    assert done.stderr.startswith("pacs: pacs.toml: $.dicom.prot: no such setting; ")
    assert done.stderr.count("\n") == 1


def test_init_makes_a_private_home_once(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    first = pacs(home, "init")
    assert (first.returncode, first.stderr) == (0, "")
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / FILE_NAME).stat().st_mode & 0o777 == 0o600
    (home / FILE_NAME).write_text("[dicom]\nport = 104\n")
    second = pacs(home, "init")
    assert second.returncode == 0
    assert (home / FILE_NAME).read_text() == "[dicom]\nport = 104\n"
    assert f"pacs --home {home} serve" in second.stdout
