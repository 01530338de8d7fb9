"""Storage Commitment as SCU: another archive is asked to take over responsibility. PS3.4 Annex J.

``Reports`` takes what peers report, on whatever association; ``Commitments``
does the work of a job that asks and waits.
"""

from pacs.services.commitment.reports import EventReport, Reports
from pacs.services.commitment.service import Commitments

__all__ = ["Commitments", "EventReport", "Reports"]
