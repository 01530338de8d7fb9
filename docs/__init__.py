"""Documents, and the generator of the parts that code already says."""
