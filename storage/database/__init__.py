"""The index and the records: the only door to peewee; one module per subject."""
