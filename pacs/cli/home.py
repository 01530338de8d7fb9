"""The home a command works on: where it is and the settings found there.

Every command takes it with ``@pass_home``. Whether an archive is in it is for
``pacs.app`` to say.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from config.load import Loaded, SettingsRefused, load
from pacs.core.errors import SettingsInvalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """The directory under which all state lives."""

    path: Path

    def load(self, overrides: Mapping[str, str] | None = None) -> Loaded:
        """Read the settings of this home, those of installed extensions included.

        ``overrides`` are variables that go before the environment's. Raises
        ``SettingsInvalid`` with the exact place.
        """
        from pacs.app.extension import installed

        tables = {one.name: one.settings for one in installed()}
        try:
            return load(self.path, {**os.environ, **(overrides or {})}, tables)
        except SettingsRefused as error:
            raise SettingsInvalid(str(error)) from error


pass_home = click.make_pass_decorator(Home)
"""Decorator that hands the ``Home`` to a command as its first argument."""
