"""The audit trail: a chain of records that shows tampering, and DICOM audit messages made of it. PS3.15 Annex A.5."""

from pacs.observe.audit.trail import FileAuditTrail, record_once

__all__ = ["FileAuditTrail", "record_once"]
