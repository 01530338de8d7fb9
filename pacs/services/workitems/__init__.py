"""Workitems: Unified Procedure Steps for anybody's performers, and who watches them. PS3.4 Annex CC."""

from pacs.services.workitems.desk import Desk, OnCreated, Workitem
from pacs.services.workitems.service import Created, Outcome, Workitems

__all__ = ["Created", "Desk", "OnCreated", "Outcome", "Workitem", "Workitems"]
