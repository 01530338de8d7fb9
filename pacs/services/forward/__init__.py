"""Making one destination hold what a route selects: exactly what is missing, each outcome on record. PS3.4 Annex B."""

from pacs.services.forward.service import Forwarding

__all__ = ["Forwarding"]
