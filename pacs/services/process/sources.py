"""What a workitem names, as it is held: found under its maker's visibility, by one registrant, within the bounds.

Refuses what is not whole; what whole series hold beside images is left out.
"""

import hashlib
from collections.abc import Iterator, Sequence

from pydicom.uid import UID

from pacs.core.attributes import Level
from pacs.core.caller import Caller
from pacs.core.errors import InstanceNotFound, ProcessingRefused
from pacs.core.ports import RetrieveIndex
from pacs.core.records import Held, Selection
from pacs.services.process.words import Input

Row = tuple[int, Held]


def found(
    index: RetrieveIndex, caller: Caller, inputs: Sequence[Input], most: int
) -> Sequence[Row]:
    """Find all that ``inputs`` name, each once, with its row.

    Raises ``InstanceNotFound`` where something is not held, or not for this caller, and
    ``ProcessingRefused`` where it is too much, too dense, or of several registrants.
    """
    rows: dict[int, None] = {}
    for one in inputs:
        rows.update(dict.fromkeys(_chosen(index, caller, one, most)))
        if len(rows) > most:
            raise ProcessingRefused(f"more than {most} images: name fewer")
    numbers = list(rows)
    held = index.fetch(numbers)
    if len(held) < len(numbers):
        raise InstanceNotFound("an image was deleted meanwhile")
    if len({one.registrant for one in held}) > 1:
        raise ProcessingRefused("the images belong to several registrants")
    return list(zip(numbers, held, strict=True))


def _chosen(index: RetrieveIndex, caller: Caller, one: Input, most: int) -> Iterator[int]:
    selection = selection_of(one)
    if caller.max_matrix is None:
        chosen = index.select(selection, caller.visibility, most)
    else:
        within = index.select_within(selection, caller.visibility, most, caller.max_matrix)
        if within.denser or within.unmeasured:
            raise ProcessingRefused("images have more pixels than the purpose allows")
        chosen = within.chosen
    if len(chosen) > most:
        raise ProcessingRefused(f"more than {most} images: name fewer")
    named = {each.sop_instance_uid for each in one.references}
    if named and len(chosen) < len(named):
        raise InstanceNotFound(f"{len(named) - len(chosen)} of {len(named)} images are not held")
    rows = [row for row, sop_class, _ in chosen if named or _is_image(sop_class)]
    if not rows:
        raise InstanceNotFound("no images are held under what is named")
    yield from rows


def _is_image(sop_class_uid: str) -> bool:
    """Tell whether a class is one of images; of one that nobody knows it is tried."""
    name = UID(sop_class_uid).name
    return "Image Storage" in name or name == sop_class_uid


def selection_of(one: Input) -> Selection:
    """Say what is named, as the index is asked for it."""
    level = Level.STUDY if not one.series_instance_uid else Level.SERIES
    return Selection(
        level=Level.IMAGE if one.references else level,
        study_instance_uids=(one.study_instance_uid,),
        series_instance_uids=(one.series_instance_uid,) if one.series_instance_uid else (),
        sop_instance_uids=tuple(dict.fromkeys(each.sop_instance_uid for each in one.references)),
    )


def digest_of(held: Sequence[Held]) -> str:
    """Sum up what was received of these: the same for the same images in the same order."""
    return hashlib.sha256("\n".join(one.digest for one in held).encode()).hexdigest()
