"""pynetdicom's own tests, from the installed package, run against our association layer."""
