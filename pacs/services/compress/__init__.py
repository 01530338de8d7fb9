"""Compression at rest: losslessly, with proof, and back. docs/adr/0015, docs/services/compress.md."""

from pacs.services.compress.service import Compression
from pacs.services.compress.tally import Tally
from pacs.services.compress.tidy import Tidying

__all__ = ["Compression", "Tally", "Tidying"]
