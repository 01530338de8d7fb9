"""Reading a Data Set's header as it lies on disk: every structure walked, every bound kept, no pixels.

Source: PS3.5 Section 7 (Data Set), 6.1 (character repertoires) and Annex A
(transfer syntaxes). What is refused is refused by cause, with the errors of
``pacs.core.errors``; odd values of elements never are a cause.
"""

from pacs.services.header.read import read_dataset, read_header

__all__ = ["read_dataset", "read_header"]
