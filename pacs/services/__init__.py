"""What the archive does, in archive words, free of DIMSE."""
