"""Usage: connections as they end, and what accounting asks for by month."""

from pacs.services.usage.account import UsageAccount, UsageLine
from pacs.services.usage.connections import Connections

__all__ = ["Connections", "UsageAccount", "UsageLine"]
