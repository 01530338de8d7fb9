"""What we ask of peers: one module per DICOM service we use."""
