"""Measurements against peers and the demonstration: real studies, real associations, one run."""
