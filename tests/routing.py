"""What tests of routes share: ``pacs`` run in this process, DCMTK's storescu as the modality, jobs as an admin sees them."""

import json
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from pacs.cli import main as pacs
from tests.archive import Tool, run
from tests.crash import ct

_OVER = frozenset({"done", "failed", "cancelled"})


class Here:
    """``pacs`` run in this process: starting one costs more than the command."""

    def __init__(self, home: Path, url: str = "") -> None:
        self._environment = {"PACS_HOME": str(home), "PACS_DATABASE__URL": url}

    def __call__(self, *arguments: str, code: int = 0, aside: bool = False) -> str:
        """Run a command; it must end with ``code``. Gives what it printed, or complained of or said ``aside``."""
        said, complained = StringIO(), StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            redirect_stdout(said),
            redirect_stderr(complained),
        ):
            for name, value in self._environment.items():
                patch.setenv(name, value)
            ended = pacs.run(arguments)
        assert ended == code, complained.getvalue()
        assert "Traceback" not in complained.getvalue()
        return complained.getvalue() if code or aside else said.getvalue()

    def json(self, *arguments: str) -> list[dict[str, Any]]:
        """Run a list with ``--json``."""
        rows: list[dict[str, Any]] = json.loads(self(*arguments, "--json"))
        return rows

    def peer(self, ae_title: str, port: int, *policy: str) -> None:
        """Name a peer on loopback."""
        self("peer", "add", ae_title, "127.0.0.1", str(port), *policy)

    def jobs(self, kind: str = "forward.send") -> list[dict[str, Any]]:
        """List jobs of a kind, oldest first, with payload and result as they read."""
        return [
            {**one, "payload": json.loads(one["payload"]), "result": json.loads(one["result"] or "{}")}
            for one in reversed(self.json("job", "list", "--kind", kind))
        ]  # fmt: skip

    def jobs_to(self, ae_title: str) -> list[dict[str, Any]]:
        """Those of forwarding to one destination."""
        return [one for one in self.jobs() if one["payload"]["destination"] == ae_title]

    def all_over(self) -> bool:
        """Tell whether every job there is has ended."""
        return all(one["state"] in _OVER for one in self.json("job", "list"))


def send(tool: Tool, port: int, files: Iterable[Path], *options: str, source: str = "CT1") -> None:
    """Send files to the archive with DCMTK, in their order."""
    said = run(tool("storescu"), *options, "-aet", source, "-aec", "PACS", "127.0.0.1", str(port),
               *map(str, files))  # fmt: skip
    assert said.code == 0, said.text


def image(uid: str, **values: Any) -> Dataset:
    """Make a small CT; its study and series are what its UID begins with."""
    series = uid.rpartition(".")[0]
    made = ct(study=series.rpartition(".")[0], series=series, uid=uid, size_bytes=4_000)
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made
