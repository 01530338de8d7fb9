"""Bytes of instances: one module per kind of store."""
