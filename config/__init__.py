"""Settings: every bound has a name, a unit, a default and a sentence; nothing here opens a socket or a file but load."""
