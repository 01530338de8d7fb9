"""The composition root: the only place that names concrete classes and joins ports to them."""
