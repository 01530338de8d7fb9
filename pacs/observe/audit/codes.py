"""Coded values of audit messages: PS3.16 CID 400 to 405 and D (DCM), and RFC 3881's own."""

from typing import Final, NamedTuple


class Code(NamedTuple):
    """One coded value, as PS3.15 A.5.1 writes it."""

    value: str
    system: str
    meaning: str


def _dcm(value: str, meaning: str) -> Code:
    return Code(value, "DCM", meaning)


# CID 400, Audit Event ID.
APPLICATION_ACTIVITY: Final = _dcm("110100", "Application Activity")
AUDIT_LOG_USED: Final = _dcm("110101", "Audit Log Used")
BEGIN_TRANSFERRING: Final = _dcm("110102", "Begin Transferring DICOM Instances")
INSTANCES_ACCESSED: Final = _dcm("110103", "DICOM Instances Accessed")
INSTANCES_TRANSFERRED: Final = _dcm("110104", "DICOM Instances Transferred")
STUDY_DELETED: Final = _dcm("110105", "DICOM Study Deleted")
EXPORT: Final = _dcm("110106", "Export")
QUERY: Final = _dcm("110112", "Query")
SECURITY_ALERT: Final = _dcm("110113", "Security Alert")
USER_AUTHENTICATION: Final = _dcm("110114", "User Authentication")

# CID 401 and 403, Audit Event Type Code and Security Alert Type Code.
APPLICATION_START: Final = _dcm("110120", "Application Start")
APPLICATION_STOP: Final = _dcm("110121", "Application Stop")
LOGIN: Final = _dcm("110122", "Login")
NODE_AUTHENTICATION: Final = _dcm("110126", "Node Authentication")
NETWORK_CONFIGURATION: Final = _dcm("110128", "Network Configuration")
SECURITY_CONFIGURATION: Final = _dcm("110129", "Security Configuration")
RESTRICTED_FUNCTION: Final = _dcm("110132", "Use of Restricted Function")
RECORDING_STOPPED: Final = _dcm("110133", "Audit Recording Stopped")
RECORDING_STARTED: Final = _dcm("110134", "Audit Recording Started")
OBJECT_SECURITY_CHANGED: Final = _dcm("110135", "Object Security Attributes Changed")
USER_SECURITY_CHANGED: Final = _dcm("110137", "User Security Attributes Changed")

# CID 402, Audit Active Participant Role ID Code.
APPLICATION: Final = _dcm("110150", "Application")
APPLICATION_LAUNCHER: Final = _dcm("110151", "Application Launcher")
DESTINATION: Final = _dcm("110152", "Destination Role ID")
SOURCE: Final = _dcm("110153", "Source Role ID")
DESTINATION_MEDIA: Final = _dcm("110154", "Destination Media")

# CID 404 and 405, Audit Participant Object ID Type Code and Media Type Code.
STUDY_INSTANCE_UID: Final = _dcm("110180", "Study Instance UID")
SOP_CLASS_UID: Final = _dcm("110181", "SOP Class UID")
NODE_ID: Final = _dcm("110182", "Node ID")
MEDIA_URI: Final = _dcm("110037", "URI")
PATIENT_NUMBER: Final = Code("2", "RFC-3881", "Patient Number")
URI: Final = Code("12", "RFC-3881", "URI")
