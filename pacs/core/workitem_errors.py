"""What can go wrong with a workitem, in archive words. PS3.4 Annex CC.

As in ``pacs.core.errors``, a class says what happened and never which number a
peer gets. ``attributes`` are tags of the Data Set the peer sent, its answer's
Attribute Identifier List (0000,1005).
"""

from pacs.core.errors import PacsError


class WorkitemError(PacsError):
    """Base of what can go wrong with a workitem."""

    def __init__(self, message: str = "", *, attributes: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.attributes = attributes


class WorkitemUnknown(WorkitemError):
    """There is no such workitem, or none this caller may see."""

    peer_comment = "No such workitem"


class WorkitemExists(WorkitemError):
    """There is a workitem of that UID already, whosever it is."""

    peer_comment = "This UID cannot be used"  # the status is the standard's, no more is told


class WorkitemUIDInvalid(WorkitemError):
    """The UID asked for is none, or is a well-known one."""

    peer_comment = "Not a UID a workitem can have"


class WorkitemsFull(WorkitemError):
    """No room for a further workitem, or for one who watches."""

    peer_comment = "Too many workitems, or too many that watch"


class WorkitemTooLarge(WorkitemError):
    """The workitem would be larger than the settings allow."""

    peer_comment = "Workitem exceeds the size the archive accepts"


# --- attributes ---------------------------------------------------------------------


class AttributeMissing(WorkitemError):
    """An attribute that is required is not there."""

    peer_comment = "A required attribute is missing"


class AttributeValueMissing(WorkitemError):
    """An attribute that requires a value has none."""

    peer_comment = "A required attribute has no value"


class AttributeValueInvalid(WorkitemError):
    """A value is none of those defined, or cannot be decoded."""

    peer_comment = "An attribute has an invalid value"


class AttributeNotAllowed(WorkitemError):
    """An attribute that may not be set, or not any more."""

    peer_comment = "An attribute may not be set"


class ArgumentInvalid(WorkitemError):
    """The Action Information lacks what it must have, or has an invalid value."""

    peer_comment = "Action Information is incomplete or invalid"


class ActionUnknown(WorkitemError):
    """There is no action of that type."""

    peer_comment = "No such action type"


# --- states -------------------------------------------------------------------------


class NotScheduledAtFirst(WorkitemError):
    """A workitem begins as SCHEDULED, and as nothing else."""

    peer_comment = "A workitem is created as SCHEDULED"


class NeverScheduledAgain(WorkitemError):
    """No workitem becomes SCHEDULED but by being created."""

    peer_comment = "Only N-CREATE makes a workitem SCHEDULED"


class NoLongerUpdated(WorkitemError):
    """The workitem is in another final state."""

    peer_comment = "The workitem may no longer be updated"


class TransactionUIDWrong(WorkitemError):
    """The Transaction UID is not the one the workitem was claimed with."""

    peer_comment = "Not the Transaction UID of the workitem"


class AlreadyInProgress(WorkitemError):
    """The workitem was claimed before, with this Transaction UID."""

    peer_comment = "The workitem is already IN PROGRESS"


class NotInProgress(WorkitemError):
    """The workitem has not been claimed yet."""

    peer_comment = "The workitem is not IN PROGRESS"


class FinalStateUnmet(WorkitemError):
    """The workitem lacks attributes it must have in its final state."""

    peer_comment = "Final state requirements are not met"


class AlreadyCompleted(WorkitemError):
    """What is asked to be cancelled is COMPLETED."""

    peer_comment = "The workitem is already COMPLETED"


class NotEnded(WorkitemError):
    """The workitem is in no final state, so it is not removed."""

    peer_comment = "The workitem has not ended"


class PerformerAway(WorkitemError):
    """Nobody watches the workitem who could tell its performer."""

    peer_comment = "The performer cannot be contacted"


# --- watching -----------------------------------------------------------------------


class ReceiverUnknown(WorkitemError):
    """Receiving AE is not a device of this caller's."""

    peer_comment = "Receiving AE Title is unknown"


class ActionUnfit(WorkitemError):
    """The action is not one for this instance."""

    peer_comment = "Action is not appropriate for this instance"
