"""Tests: unit (one room), contracts (one port, every implementation), integration, e2e (foreign peers)."""
