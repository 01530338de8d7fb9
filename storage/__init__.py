"""Where things are kept: instances as files, facts as rows, deletions and corrections as journal entries."""
