"""Delivering instances to whoever asked or to another peer. PS3.4 Sections C.4.2 and C.4.3."""

from pacs.services.retrieve.service import Retrieve

__all__ = ["Retrieve"]
