"""The application: an archive that speaks DICOM on every side."""
