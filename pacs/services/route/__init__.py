"""Routes: which arrivals go where. Judged as C-FIND matches, turned into jobs; sending is for others."""

from pacs.services.route.admin import Routes
from pacs.services.route.checks import Ourselves
from pacs.services.route.judge import Judge
from pacs.services.route.rule import RouteRule

__all__ = ["Judge", "Ourselves", "RouteRule", "Routes"]
