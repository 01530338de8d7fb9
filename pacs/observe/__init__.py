"""What is seen of a running archive: logs, metrics and the audit trail."""
