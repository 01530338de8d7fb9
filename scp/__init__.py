"""What peers can ask of us: one module per DICOM service class, translating requests into service calls."""
