"""Durable jobs: leases, retries, schedules and worker processes; knows no kind of work."""
