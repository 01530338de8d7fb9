"""Pixels: codecs, operations, rendering, and the only place where pixels meet Data Sets."""
