"""What is seen of a running archive: logs and the audit trail."""
