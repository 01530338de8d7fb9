"""Retrieve SCU, C-GET. PS3.4 Section C.4.3.

Owns which storage contexts are offered to the peer, with the SCP role taken
by us (PS3.7 Section D.3.3.4). It refuses to judge what arrives: each instance
lies in the folder as it was sent.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import uid
from pydicom.dataset import Dataset

from config import settings
from pacs.association.landing import LandingPlace, Received
from pacs.association.requested import RetrieveResponse
from pacs.association.requestor import MAX_CONTEXTS, Proposal, associate
from pacs.core.records import Peer
from scu.models import STUDY_ROOT_GET, UNCOMPRESSED

TRANSFER_SYNTAXES: tuple[str, ...] = (
    *UNCOMPRESSED,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLSNearLossless,
    uid.JPEG2000,
    uid.HTJ2K,
    uid.ExplicitVRBigEndian,
)
"""What we take, the uncompressed first; retired and video syntaxes are for the caller to name."""

COMMON_SOP_CLASSES: tuple[str, ...] = (
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.DigitalXRayImageStorageForProcessing,
    uid.DigitalMammographyXRayImageStorageForPresentation,
    uid.DigitalMammographyXRayImageStorageForProcessing,
    uid.BreastTomosynthesisImageStorage,
    uid.CTImageStorage,
    uid.EnhancedCTImageStorage,
    uid.MRImageStorage,
    uid.EnhancedMRImageStorage,
    uid.MRSpectroscopyStorage,
    uid.UltrasoundImageStorage,
    uid.UltrasoundMultiFrameImageStorage,
    uid.SecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
    uid.XRayAngiographicImageStorage,
    uid.XRayRadiofluoroscopicImageStorage,
    uid.NuclearMedicineImageStorage,
    uid.PositronEmissionTomographyImageStorage,
    uid.EnhancedPETImageStorage,
    uid.RTImageStorage,
    uid.RTDoseStorage,
    uid.RTStructureSetStorage,
    uid.RTPlanStorage,
    uid.SegmentationStorage,
    uid.BasicTextSRStorage,
    uid.EnhancedSRStorage,
    uid.ComprehensiveSRStorage,
    uid.KeyObjectSelectionDocumentStorage,
    uid.GrayscaleSoftcopyPresentationStateStorage,
    uid.EncapsulatedPDFStorage,
    uid.VLWholeSlideMicroscopyImageStorage,
    uid.VLPhotographicImageStorage,
    uid.VLEndoscopicImageStorage,
    uid.OphthalmicPhotography8BitImageStorage,
    uid.TwelveLeadECGWaveformStorage,
)
"""What is offered where the caller does not know what the study holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """What we take in a C-GET, where it lands and who is told."""

    folder: Path
    received: Callable[[Received], None]
    max_instance_bytes: int
    sop_class_uids: Sequence[str] = COMMON_SOP_CLASSES
    transfer_syntax_uids: Sequence[str] = TRANSFER_SYNTAXES


def get(
    peer: Peer,
    identifier: Dataset,
    arrivals: Arrivals,
    *,
    ae_title: str,
    bounds: settings.Association,
    sop_class_uid: str = STUDY_ROOT_GET,
) -> Iterator[RetrieveResponse]:
    """Yield each C-GET response; the instances land in ``arrivals.folder`` meanwhile.

    Raises ``PeerUnreachable`` or ``PeerRefused``.
    """
    proposals = [
        Proposal(sop_class_uid=sop_class_uid, transfer_syntax_uids=UNCOMPRESSED),
        *storage_proposals(arrivals.sop_class_uids, arrivals.transfer_syntax_uids),
    ]
    with associate(peer, proposals, ae_title=ae_title, bounds=bounds) as requested:
        yield from requested.get(
            sop_class_uid,
            identifier,
            LandingPlace(
                folder=arrivals.folder,
                max_bytes=arrivals.max_instance_bytes,
                received=arrivals.received,
            ),
        )


def storage_proposals(
    sop_class_uids: Sequence[str], transfer_syntax_uids: Sequence[str]
) -> list[Proposal]:
    """Offer each class once per syntax, so that the peer need not convert, as far as 127 contexts go.

    The peer chooses one syntax per context (PS3.8 Section 9.3.3.2). Where
    there are more combinations than contexts, each class gets one context with
    every syntax, and classes past the last context are left out.
    """
    room = MAX_CONTEXTS - 1
    if len(sop_class_uids) * len(transfer_syntax_uids) <= room:
        choices: list[tuple[str, ...]] = [(syntax,) for syntax in transfer_syntax_uids]
    else:
        choices = [tuple(transfer_syntax_uids)]
    return [
        Proposal(sop_class_uid=sop_class, transfer_syntax_uids=choice, scp_role=True)
        for sop_class in sop_class_uids
        for choice in choices
    ][:room]
