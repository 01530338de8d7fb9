"""Operations on images: ours, and those that extensions bring."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pacs.app.extension import Extension
from pacs.core.errors import SettingsInvalid

if TYPE_CHECKING:
    from processing.operations.catalogue import Catalogue


def catalogue(extensions: Sequence[Extension]) -> "Catalogue":
    """Load everything that can be asked for. Raises ``SettingsInvalid``."""
    # Here, so that processes that compute nothing do not load what only images need.
    from processing.operations.catalogue import Catalogue
    from processing.operations.loading import OperationInvalid

    try:
        return Catalogue(place for one in extensions for place in one.operations)
    except OperationInvalid as error:
        raise SettingsInvalid(str(error)) from error


def require_sound(extensions: Sequence[Extension]) -> None:
    """Refuse operations that cannot be offered, as a server starts. Raises ``SettingsInvalid``."""
    if any(one.operations for one in extensions):
        catalogue(extensions)
