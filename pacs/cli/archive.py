"""Opening the archive for a command that works on it directly, as ``admin``."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pacs.cli.home import Home
from pacs.observe.log import configure

if TYPE_CHECKING:
    from pacs.app.archive import Archive


@contextmanager
def opened(home: Home) -> Iterator["Archive"]:
    """Open the archive of ``home``. Raises ``NotInitialized`` or ``SettingsInvalid``."""
    from pacs.app.archive import open_archive

    loaded = home.load()
    configure(loaded.settings.logging)
    with open_archive(home.path, loaded) as archive:
        yield archive
