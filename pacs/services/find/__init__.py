"""Answering queries: keys understood, narrowed for the index, matched, and answered. PS3.4 Section C.4.1."""

from pacs.services.find.search import Answer, Find

__all__ = ["Answer", "Find"]
