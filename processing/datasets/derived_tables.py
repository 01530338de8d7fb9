"""Which attributes go along into a derived image, and which stay behind. PS3.3 Sections C.7.6, C.11, A.8."""

from typing import Final

CAPTURED: Final = (
    "AccessionNumber",
    "AcquisitionDate",
    "AcquisitionDateTime",
    "AcquisitionNumber",
    "AcquisitionTime",
    "BodyPartExamined",
    "BurnedInAnnotation",
    "ContributingEquipmentSequence",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "DerivationCodeSequence",
    "DerivationDescription",
    "FrameOfReferenceUID",
    "ImageLaterality",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "ImageType",
    "InstanceNumber",
    "InstitutionName",
    "IssuerOfAccessionNumberSequence",
    "Laterality",
    "LongitudinalTemporalInformationModified",
    "LossyImageCompression",
    "LossyImageCompressionMethod",
    "LossyImageCompressionRatio",
    "Modality",
    "OriginalAttributesSequence",
    "PatientIdentityRemoved",
    "PatientOrientation",
    "PatientPosition",
    "PixelPaddingValue",
    "PixelSpacing",
    "PositionReferenceIndicator",
    "PhotometricInterpretation",
    "ProcedureCodeSequence",
    "RecognizableVisualFeatures",
    "ReferringPhysicianName",
    "SeriesDescription",
    "SeriesNumber",
    "SliceThickness",
    "SpecificCharacterSet",
    "StudyDate",
    "StudyDescription",
    "StudyID",
    "StudyInstanceUID",
    "StudyTime",
    "TimezoneOffsetFromUTC",
    "VOILUTFunction",
    "VOILUTSequence",
    "WindowCenter",
    "WindowCenterWidthExplanation",
    "WindowWidth",
)
"""What a Secondary Capture takes from its source, beside patient and clinical trial."""

LEFT_BEHIND: Final = (
    "AlternateRepresentationSequence",
    "ConcatenationFrameOffsetNumber",
    "ConcatenationUID",
    "DigitalSignaturesSequence",
    "EncryptedAttributesSequence",
    "IconImageSequence",
    "InConcatenationNumber",
    "InConcatenationTotalNumber",
    "InstanceCreatorUID",
    "LargestImagePixelValue",
    "LargestImagePixelValueInPlane",
    "LargestPixelValueInSeries",
    "MACParametersSequence",
    "ModalityLUTSequence",
    "PixelPaddingRangeLimit",
    "ReferencedImageEvidenceSequence",
    "ReferencedPerformedProcedureStepSequence",
    "SOPInstanceUIDOfConcatenationSource",
    "SmallestImagePixelValue",
    "SmallestImagePixelValueInPlane",
    "SmallestPixelValueInSeries",
    "SourceImageEvidenceSequence",
    "SourceImageSequence",
)
"""What was true of the source only."""

OF_A_WINDOW: Final = (
    "VOILUTFunction",
    "VOILUTSequence",
    "WindowCenter",
    "WindowCenterWidthExplanation",
    "WindowWidth",
)
"""Which values to show: of another range, others."""

OF_VALUES: Final = ("PixelPaddingValue", "RescaleType", *OF_A_WINDOW)
"""What was said of values that a result does not have."""

OF_SAMPLES: Final = ("RealWorldValueMappingSequence",)
"""What was said of stored samples, and is true only of those that stand for the same values."""

OF_A_TILT: Final = ("GantryDetectorSlew", "GantryDetectorTilt")
"""How the gantry stood to the slices: nothing that a plane of a volume has."""

OF_THE_MATRIX: Final = (
    "CenterOfCircularCollimator",
    "CenterOfCircularShutter",
    "CollimatorLeftVerticalEdge",
    "CollimatorLowerHorizontalEdge",
    "CollimatorRightVerticalEdge",
    "CollimatorShape",
    "CollimatorUpperHorizontalEdge",
    "PixelAspectRatio",
    "RadiusOfCircularCollimator",
    "RadiusOfCircularShutter",
    "ReconstructionDiameter",
    "SequenceOfUltrasoundRegions",
    "ShutterLeftVerticalEdge",
    "ShutterLowerHorizontalEdge",
    "ShutterRightVerticalEdge",
    "ShutterShape",
    "ShutterUpperHorizontalEdge",
    "VerticesOfThePolygonalCollimator",
    "VerticesOfThePolygonalShutter",
)
"""What speaks of rows and columns that another matrix does not have."""

NEEDED: Final = (
    "AccessionNumber",
    "PatientBirthDate",
    "PatientID",
    "PatientName",
    "PatientOrientation",
    "PatientSex",
    "ReferringPhysicianName",
    "StudyDate",
    "StudyID",
    "StudyTime",
)
"""What a Secondary Capture has to have, if empty, where its source lacks it."""

OF_PULSE_SEQUENCE: Final = (
    "BulkMotionCompensationTechnique",
    "CoverageOfKSpace",
    "EchoPlanarPulseSequence",
    "EchoPulseSequence",
    "GeometryOfKSpaceTraversal",
    "MRAcquisitionType",
    "MultiPlanarExcitation",
    "MultipleSpinEcho",
    "NumberOfKSpaceTrajectories",
    "OversamplingPhase",
    "PhaseContrast",
    "PulseSequenceName",
    "RectilinearPhaseEncodeReordering",
    "SaturationRecovery",
    "SegmentedKSpaceTraversal",
    "SpectrallySelectedSuppression",
    "SteadyStatePulseSequence",
)
"""What an Enhanced MR image says where it is ORIGINAL or MIXED. PS3.3 Section C.8.13.4."""

ENHANCED: Final = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{last}"
    for last in (
        "2.1",
        "2.2",
        "4.1",
        "4.3",
        "4.4",
        "6.2",
        "12.1.1",
        "12.2.1",
        "13.1.1",
        "13.1.2",
        "13.1.3",
        "13.1.4",
        "13.1.5",
        "14.1",
        "14.2",
        "77.1.5.4",
        "128.1",
        "130",
    )
)
"""Classes whose Image Type is that of enhanced images, with PRIMARY as value 2. PS3.3 Section C.8.16.1.2."""
