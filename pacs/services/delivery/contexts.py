"""Which presentation contexts a selection needs, and over how many associations they go. PS3.8 Section 9.3.2.2.

Knows what is stored in which syntax and what one association holds; decides
nothing about who sends what when.
"""

from collections.abc import Callable, Collection, Sequence

from pacs.core.identifiers import SOPClassUID, TransferSyntaxUID

EXPLICIT_LITTLE = TransferSyntaxUID("1.2.840.10008.1.2.1")
IMPLICIT_LITTLE = TransferSyntaxUID("1.2.840.10008.1.2")
FALLBACKS = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)
_CONTEXTS = 128  # odd ids 1 to 255

Chosen = tuple[int, SOPClassUID, TransferSyntaxUID]
Wanted = Callable[[SOPClassUID, Collection[TransferSyntaxUID]], Sequence[TransferSyntaxUID]]


class Group:
    """What one association carries: presentation contexts and the rows that need them."""

    def __init__(self, besides: Sequence[SOPClassUID] = ()) -> None:
        self.offers: list[tuple[SOPClassUID, tuple[TransferSyntaxUID, ...]]] = []
        self.stored: dict[SOPClassUID, list[TransferSyntaxUID]] = {}
        self.rows: list[int] = []
        for sop_class in besides:
            self.need(sop_class, (EXPLICIT_LITTLE,))

    def need(self, sop_class: SOPClassUID, syntaxes: Sequence[TransferSyntaxUID]) -> None:
        """Offer a class in those syntaxes and in those that every device knows."""
        needed = [(sop_class, (one,)) for one in dict.fromkeys((*syntaxes, *FALLBACKS))]
        self.offers += [one for one in needed if one not in self.offers]
        self.stored.setdefault(sop_class, []).extend(syntaxes)


def nothing_besides(*_: object) -> Sequence[TransferSyntaxUID]:
    """Want only what is stored, and what every device knows."""
    return ()


def associations_for(
    chosen: Sequence[Chosen],
    wanted: Wanted = nothing_besides,
    besides: Sequence[SOPClassUID] = (),
) -> list[Group]:
    """Spread a selection over associations of at most 128 presentation contexts each.

    Each SOP Class gets one context per stored syntax, and explicit and
    implicit little endian ones of their own, so that whichever the receiver
    takes is known exactly. The classes ``besides`` are what some of it may be
    once it was changed: every association has them, uncompressed. The syntaxes
    ``wanted`` never cost a further association: they get the room that is left,
    the best for every class before the second best for any.
    """
    by_class: dict[SOPClassUID, dict[TransferSyntaxUID, None]] = {}
    for _, sop_class, syntax in chosen:
        by_class.setdefault(sop_class, {})[syntax] = None
    groups: list[Group] = []
    group_of: dict[tuple[SOPClassUID, TransferSyntaxUID], Group] = {}
    for sop_class, stored in by_class.items():
        syntaxes = list(stored)
        step = _CONTEXTS - len(FALLBACKS) * (1 + len(besides))
        for start in range(0, len(syntaxes), step):
            some = syntaxes[start : start + step]
            needed = {*some, *FALLBACKS}
            if not groups or len(groups[-1].offers) + len(needed) > _CONTEXTS:
                groups.append(Group(besides))
            groups[-1].need(sop_class, some)
            group_of.update({(sop_class, one): groups[-1] for one in some})
    for row, sop_class, syntax in chosen:
        group_of[sop_class, syntax].rows.append(row)
    for group in groups:
        _widen(group, wanted)
    return groups


def _widen(group: Group, wanted: Wanted) -> None:
    """Add what is wanted besides, as far as the association holds it."""
    wishes = {sop_class: wanted(sop_class, stored) for sop_class, stored in group.stored.items()}
    for rank in range(max(map(len, wishes.values()))):
        for sop_class, syntaxes in wishes.items():
            offer = [(sop_class, (one,)) for one in syntaxes[rank : rank + 1]]
            if len(group.offers) < _CONTEXTS and not set(offer) <= set(group.offers):
                group.offers += offer
