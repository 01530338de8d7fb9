"""What a peer's Status means, service by service. PS3.4 Tables B.2-1 and C.4-1 to C.4-3.

Only the meanings of the service classes; those all services share are in
PS3.7 Annex C. It decides nothing about what follows from a Status.
"""

from collections.abc import Mapping, Sequence

from pacs.association.message import Operation

Meaning = tuple[int, int, str]
"""First and last Status of a range, and its words."""

_RETRIEVE: Sequence[Meaning] = (
    (0xA701, 0xA701, "Refused: out of resources, unable to calculate number of matches"),
    (0xA702, 0xA702, "Refused: out of resources, unable to perform sub-operations"),
    (0xA801, 0xA801, "Refused: Move Destination unknown"),
    (0xA900, 0xA900, "Error: Identifier does not match SOP Class"),
    (0xB000, 0xB000, "Warning: sub-operations complete, one or more failures or warnings"),
    (0xC000, 0xCFFF, "Error: unable to process"),
    (0xFE00, 0xFE00, "Cancel: sub-operations terminated"),
    (0xFF00, 0xFF00, "Pending: sub-operations are continuing"),
)

MEANINGS: Mapping[Operation, Sequence[Meaning]] = {
    Operation.C_ECHO: (),
    Operation.C_STORE: (  # PS3.4 Table B.2-1
        (0xA700, 0xA7FF, "Refused: out of resources"),
        (0xA900, 0xA9FF, "Error: Data Set does not match SOP Class"),
        (0xB000, 0xB000, "Warning: coercion of data elements"),
        (0xB006, 0xB006, "Warning: elements discarded"),
        (0xB007, 0xB007, "Warning: Data Set does not match SOP Class"),
        (0xC000, 0xCFFF, "Error: cannot understand"),
    ),
    Operation.C_FIND: (  # PS3.4 Table C.4-1
        (0xA700, 0xA700, "Refused: out of resources"),
        (0xA900, 0xA900, "Error: Identifier does not match SOP Class"),
        (0xC000, 0xCFFF, "Error: unable to process"),
        (0xFE00, 0xFE00, "Cancel: matching terminated"),
        (0xFF00, 0xFF00, "Pending: current match, all optional keys supported"),
        (0xFF01, 0xFF01, "Pending: current match, some optional keys not supported"),
    ),
    Operation.C_MOVE: _RETRIEVE,  # PS3.4 Table C.4-2
    Operation.C_GET: _RETRIEVE,  # PS3.4 Table C.4-3
}


def meaning(operation: Operation, status: int) -> str:
    """Give the words of a Status in its service class, empty where its tables do not list it.

    >>> meaning(Operation.C_STORE, 0xA702)
    'Refused: out of resources'
    """
    found = (words for low, high, words in MEANINGS[operation] if low <= status <= high)
    return next(found, "")
