"""How this implementation names itself. PS3.7 Annex D.3.3.2, PS3.10 Table 7.1-1."""

from typing import Final

IMPLEMENTATION_CLASS_UID: Final = "2.25.19497007827250509921356680591601059408"
IMPLEMENTATION_VERSION_NAME: Final = "PACS_ARCHIVE_01"
