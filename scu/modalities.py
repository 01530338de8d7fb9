"""Which Storage SOP Classes a series of a Modality is likely to hold. PS3.3 Section C.7.3.1.1.1.

Only for peers that name no SOP Classes: the fewer are offered, the more
transfer syntaxes have a presentation context of their own. It decides nothing
about what is taken.
"""

from collections.abc import Iterable, Mapping, Sequence

from pydicom import uid

_CAPTURE = uid.SecondaryCaptureImageStorage

CLASSES: Mapping[str, Sequence[str]] = {
    "CR": (uid.ComputedRadiographyImageStorage, _CAPTURE),
    "CT": (uid.CTImageStorage, uid.EnhancedCTImageStorage, _CAPTURE),
    "DOC": (uid.EncapsulatedPDFStorage,),
    "DX": (
        uid.DigitalXRayImageStorageForPresentation,
        uid.DigitalXRayImageStorageForProcessing,
        _CAPTURE,
    ),
    "ECG": (uid.TwelveLeadECGWaveformStorage, uid.GeneralECGWaveformStorage),
    "ES": (uid.VLEndoscopicImageStorage, uid.VideoEndoscopicImageStorage),
    "KO": (uid.KeyObjectSelectionDocumentStorage,),
    "MG": (
        uid.DigitalMammographyXRayImageStorageForPresentation,
        uid.DigitalMammographyXRayImageStorageForProcessing,
        uid.BreastTomosynthesisImageStorage,
        _CAPTURE,
    ),
    "MR": (
        uid.MRImageStorage,
        uid.EnhancedMRImageStorage,
        uid.MRSpectroscopyStorage,
        _CAPTURE,
    ),
    "NM": (uid.NuclearMedicineImageStorage, _CAPTURE),
    "OP": (
        uid.OphthalmicPhotography8BitImageStorage,
        uid.OphthalmicPhotography16BitImageStorage,
    ),
    "OT": (
        _CAPTURE,
        uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
    ),
    "PR": (
        uid.GrayscaleSoftcopyPresentationStateStorage,
        uid.ColorSoftcopyPresentationStateStorage,
    ),
    "PT": (uid.PositronEmissionTomographyImageStorage, uid.EnhancedPETImageStorage, _CAPTURE),
    "RF": (uid.XRayRadiofluoroscopicImageStorage, uid.XRayAngiographicImageStorage, _CAPTURE),
    "RTDOSE": (uid.RTDoseStorage,),
    "RTIMAGE": (uid.RTImageStorage,),
    "RTPLAN": (uid.RTPlanStorage,),
    "RTSTRUCT": (uid.RTStructureSetStorage,),
    "SEG": (uid.SegmentationStorage,),
    "SM": (uid.VLWholeSlideMicroscopyImageStorage,),
    "SR": (
        uid.BasicTextSRStorage,
        uid.EnhancedSRStorage,
        uid.ComprehensiveSRStorage,
        uid.Comprehensive3DSRStorage,
        uid.XRayRadiationDoseSRStorage,
    ),
    "US": (uid.UltrasoundImageStorage, uid.UltrasoundMultiFrameImageStorage, _CAPTURE),
    "XA": (uid.XRayAngiographicImageStorage, uid.XRayRadiofluoroscopicImageStorage, _CAPTURE),
    "XC": (uid.VLPhotographicImageStorage, uid.VideoPhotographicImageStorage),
}


def classes_of(modalities: Iterable[str]) -> tuple[str, ...]:
    """Name the classes of these modalities; none where one of them is not known.

    >>> classes_of(["KO", "SEG"]) == (*CLASSES["KO"], *CLASSES["SEG"])
    True
    >>> classes_of(["KO", "NONSUCH"])
    ()
    """
    named = list(modalities)
    if not all(one in CLASSES for one in named):
        return ()
    return tuple(dict.fromkeys(uid for one in named for uid in CLASSES[one]))
