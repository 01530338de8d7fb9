"""Which presentation contexts a selection needs, and over how many associations they go. PS3.8 Section 9.3.2.2.

Knows what is stored in which syntax and what one association holds; decides
nothing about who sends what when.
"""

from collections.abc import Sequence

from pacs.core.identifiers import SOPClassUID, TransferSyntaxUID

EXPLICIT_LITTLE = TransferSyntaxUID("1.2.840.10008.1.2.1")
IMPLICIT_LITTLE = TransferSyntaxUID("1.2.840.10008.1.2")
FALLBACKS = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)
_CONTEXTS = 128  # odd ids 1 to 255

Chosen = tuple[int, SOPClassUID, TransferSyntaxUID]


class Group:
    """What one association carries: presentation contexts and the rows that need them."""

    def __init__(self) -> None:
        self.offers: list[tuple[SOPClassUID, tuple[TransferSyntaxUID, ...]]] = []
        self.rows: list[int] = []


def associations_for(chosen: Sequence[Chosen]) -> list[Group]:
    """Spread a selection over associations of at most 128 presentation contexts each.

    Each SOP Class gets one context per stored syntax, and explicit and
    implicit little endian ones of their own, so that whichever the receiver
    takes is known exactly.
    """
    by_class: dict[SOPClassUID, dict[TransferSyntaxUID, None]] = {}
    for _, sop_class, syntax in chosen:
        by_class.setdefault(sop_class, {})[syntax] = None
    groups: list[Group] = []
    group_of: dict[tuple[SOPClassUID, TransferSyntaxUID], Group] = {}
    for sop_class, stored in by_class.items():
        syntaxes = list(stored)
        step = _CONTEXTS - len(FALLBACKS)
        for start in range(0, len(syntaxes), step):
            some = syntaxes[start : start + step]
            needed = list(dict.fromkeys((*some, *FALLBACKS)))
            if not groups or len(groups[-1].offers) + len(needed) > _CONTEXTS:
                groups.append(Group())
            groups[-1].offers += [(sop_class, (one,)) for one in needed]
            group_of.update({(sop_class, one): groups[-1] for one in some})
    for row, sop_class, syntax in chosen:
        group_of[sop_class, syntax].rows.append(row)
    return groups
