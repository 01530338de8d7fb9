"""Restores originals of re-encoded forms without decoding anything in this process.

Implements ``pacs.core.form_ports.Restorer``. Owns the temporary files; what is
done to a Data Set is decided in ``restore``, which runs in the sandbox.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pacs.core.errors import (
    EncodingUnproved,
    InstanceCorrupt,
    TranscodingFailed,
    TranscodingInterrupted,
)
from pacs.core.restoring import Stored
from processing.datasets import recipe as recipes
from processing.datasets.allowance import Allowance
from processing.sandbox import Sandbox, TaskFailed

_TASKS = "processing.datasets.restore"
_TRANSIENT = frozenset(("", "MemoryError", "OSError", "FileNotFoundError"))
"""What is no fault of the instance: it crashed or took too long, no memory, no room, a file swept away."""


class SandboxedRestorer:
    """Makes Data Sets as received again; may be used from many threads at once."""

    def __init__(
        self, sandbox: Sandbox, folder: Path, *, prefix: str, allowance: Allowance
    ) -> None:
        self._sandbox = sandbox
        self._allowance = allowance
        self._folder = folder
        self._prefix = prefix
        self._max_bytes = allowance.max_bytes

    def recipe(self, original: Stored, form: Stored) -> str:
        """Say how ``original`` is made of ``form``. Raises ``TranscodingFailed``; proves nothing."""
        arguments = (original, form, self._max_bytes)
        text = self._run("recipe_for", *arguments, works_on=(original, form))
        if not isinstance(text, str):
            raise TranscodingFailed("no recipe was made")
        return text

    @contextmanager
    def restored(self, form: Stored, recipe: str) -> Iterator[str]:
        """Yield a file that holds only the Data Set the recipe makes; removed afterwards.

        Raises ``TranscodingFailed``. Its digest is for the caller to look at.
        """
        output = self._new_file()
        try:
            arguments = (form, recipe, output, self._prepared(), self._max_bytes)
            self._run("restored", *arguments, works_on=(form,))
            yield output
        finally:
            Path(output).unlink(missing_ok=True)

    def head(self, data_set: BinaryIO, recipe: str) -> bytes:
        """Give the Data Set as received without Pixel Data. Raises ``InstanceCorrupt``."""
        try:
            return recipes.head(data_set, recipe)
        except recipes.RecipeUnusable as error:
            raise InstanceCorrupt(f"the form cannot be read: {error}") from error

    def _new_file(self) -> str:
        try:
            descriptor, path = tempfile.mkstemp(prefix=self._prefix, dir=self._prepared())
        except OSError as error:
            raise TranscodingInterrupted("no room for the restored file") from error
        os.close(descriptor)
        return path

    def _prepared(self) -> str:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return str(self._folder)

    def _run(self, task: str, *arguments: object, works_on: tuple[Stored, ...]) -> object:
        cpu_s = self._allowance.cpu_s(*works_on)
        try:
            return self._sandbox.run(f"{_TASKS}:{task}", *arguments, cpu_s=cpu_s)
        except TaskFailed as error:
            raise as_pacs_error(error) from error


def as_pacs_error(error: TaskFailed) -> TranscodingFailed:
    """Say in archive words how a task failed: it raised, or never came to its end."""
    if error.kind == EncodingUnproved.__name__:
        return EncodingUnproved(str(error))
    if error.kind in _TRANSIENT:
        return TranscodingInterrupted(str(error))
    return TranscodingFailed(str(error))
