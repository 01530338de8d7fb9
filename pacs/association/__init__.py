"""The DICOM upper layer (PS3.8) and DIMSE (PS3.7): the only door to pynetdicom."""
