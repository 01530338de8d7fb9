"""What a sandboxed worker does with a request for processing: sources in, files of results out.

Runs only in the worker, called by name with plain arguments. A refusal comes
back as its text, which holds no word of the images; whatever else goes wrong is
raised, and the sandbox tells its kind only.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pydicom.config

from processing.codecs.frame import PALETTE, NotEncodable
from processing.datasets.derived import Label, require_images
from processing.datasets.geometry import (
    flattened,
    grid_of,
    require_one_space,
    spacing_of,
    stack_of,
)
from processing.datasets.image_pixel import PixelsUndecodable
from processing.datasets.images import Place, Source, Stored
from processing.datasets.pixel_size import pixel_size_of
from processing.datasets.places import PlaceUnknown, number_of, place_of, time_of
from processing.datasets.references import Reference, references_of
from processing.datasets.results import DoesNotFit, Origin, Results
from processing.datasets.scale import display
from processing.operations.loading import loaded
from processing.operations.operation import (
    Colors,
    Image,
    Kind,
    Meaning,
    NotProcessable,
    Values,
    run_on_image,
    run_on_set,
)
from processing.operations.parameters import read
from processing.operations.space import StoredSlices, Volume, in_turn

pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE

_LUMINANCE = np.array((0.299, 0.587, 0.114))
"""Of red, green and blue. ITU-R BT.601, as YBR_FULL in PS3.3 Section C.7.6.3.1.2."""


class Request(TypedDict):
    """What is asked, as it travels. ``operation`` is where it is found, "module:ATTRIBUTE"."""

    operation: str
    parameters: dict[str, str]
    series_instance_uid: str
    series_description: str
    part: int
    parts: int
    uid_root: str
    made: str
    sources: list[Stored]
    folder: str
    max_bytes: int
    threads: int


def process(request: Request) -> Mapping[str, object]:
    """Do it. Gives ``made``: name in the folder, SOP Class and Instance UID each; or ``refused``."""
    try:
        return {"made": _processed(request)}
    except NotProcessable as refusal:
        return {"refused": str(refusal)}
    except (PixelsUndecodable, NotEncodable) as error:
        return {"refused": f"the pixels of an image cannot be read: {type(error).__name__}"}


def _processed(request: Request) -> list[tuple[str, str, str]]:
    operation = loaded(request["operation"])
    label = Label(
        operation=operation,
        parameters=read(operation.parameters, request["parameters"]),
        series_instance_uid=request["series_instance_uid"],
        series_description=request["series_description"],
        made=datetime.fromisoformat(request["made"]),
        uid_root=request["uid_root"],
    )
    results = Results(label=label, folder=Path(request["folder"]))
    place = Place(folder=request["folder"], max_bytes=request["max_bytes"])
    sources = [Source((path, at, syntax), place) for path, at, syntax in request["sources"]]
    require_images(one.head for one in sources)
    work: Mapping[Kind, Callable[[], None]] = {
        Kind.IMAGE: lambda: _each(sources, results, request["threads"]),
        Kind.SET: lambda: _sets(sources, results),
        Kind.VOLUME: lambda: _volume(sources, results, request),
    }
    work[operation.kind]()
    return results.made


# --- each image ---------------------------------------------------------------------------


def _each(sources: Sequence[Source], results: Results, threads: int) -> None:
    if not any(one.is_color or one.is_framed for one in sources):
        label = results.label
        for source, values in in_turn(lambda one: _run(one, 0, label), sources, threads):
            _noted(results, source).gray(values, _origin(source))
        return
    for source in sources:
        if source.is_color:
            _color(source, _noted(results, source))
        else:
            _gray(source, _noted(results, source))


def _noted(results: Results, source: Source) -> Results:
    """Have results say where their mm are, where these are not those of Pixel Spacing."""
    label = results.label
    size = pixel_size_of(source.head, 0)
    if size is None or not size.note or getattr(label.parameters, "unit", "") != "mm":
        return results
    return replace(results, label=replace(label, note=size.note))


def _gray(source: Source, results: Results) -> None:
    def values() -> Iterator[Values]:
        return (_run(source, frame, results.label) for frame in range(source.frames))

    if source.is_framed and results.label.operation.meaning is Meaning.SAME:
        scales = [source.scale(frame) for frame in range(source.frames)]
        try:
            results.frames_of_gray(values(), scales, _origin(source))
        except DoesNotFit:
            pass  # then each frame gets samples of its own
        else:
            return
    for frame, one in enumerate(values()):
        results.gray(one, _origin(source, frame if source.is_framed else None))


def _run(source: Source, frame: int, label: Label) -> Values:
    image = Image(values=source.values(frame), spacing_mm=_spacing_mm(source, frame))
    return run_on_image(label.operation, image, label.parameters)


def _spacing_mm(source: Source, frame: int) -> tuple[float, float] | None:
    size = pixel_size_of(source.head, frame)
    return None if size is None else size.spacing_mm


def _color(source: Source, results: Results) -> None:
    operation = results.label.operation
    if operation.colors is Colors.REFUSED:
        raise NotProcessable(f"{operation.name} takes gray images only")
    bits = source.colors(0)[1]

    def colors() -> Iterator[Values]:
        return (_run_color(source, frame, results.label) for frame in range(source.frames))

    stays = source.photometric != PALETTE and operation.colors is not Colors.LUMINANCE
    if stays and source.is_framed:
        results.frames_of_color(colors(), bits, _origin(source))
        return
    for frame, one in enumerate(colors()):
        origin = _origin(source, frame if source.is_framed else None)
        if operation.colors is Colors.LUMINANCE:
            results.gray(one, origin)
        else:
            results.color(one, bits, origin, as_capture=not stays)


def _run_color(source: Source, frame: int, label: Label) -> Values:
    colors, bits = source.colors(frame)
    spacing = _spacing_mm(source, frame)

    def run(values: Values) -> Values:
        image = Image(values=values, spacing_mm=spacing)
        return run_on_image(label.operation, image, label.parameters)

    if label.operation.colors is Colors.EACH:
        return np.stack([run(colors[..., one]) for one in range(3)], axis=-1)
    luminance = colors @ _LUMINANCE
    result = run(luminance)
    if label.operation.colors is Colors.LUMINANCE:
        return result
    lifted: Values = colors + (result * ((1 << bits) - 1) - luminance)[..., None]
    return lifted


def _origin(source: Source, frame: int | None = None) -> Origin:
    """What a result of one source, or of one of its frames, takes after."""
    head = source.head if frame is None else flattened(source.head, frame)
    some = () if frame is None or source.frames == 1 else (frame + 1,)
    number = number_of(source.head.get("InstanceNumber")) if frame is None else frame + 1
    return Origin(
        head=head,
        scale=display() if source.is_color else source.scale(frame or 0),
        heads=[source.head],
        references=references_of([source.head], [some]),
        number=number,
        is_frame=frame is not None,
    )


# --- several images ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """One frame of one source."""

    source: Source
    frame: int

    def values(self) -> Values:
        return self.source.values(self.frame)

    def time(self) -> tuple[object, ...]:
        return time_of(self.source.head, self.frame)


class _Images(Sequence[Image]):
    """Images of one place, read when they are looked at."""

    def __init__(self, frames: Sequence[_Frame]) -> None:
        self._frames = frames

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, number: Any) -> Any:
        one = self._frames[number]
        return Image(values=one.values(), spacing_mm=spacing_of(one.source.head, one.frame))


def _sets(sources: Sequence[Source], results: Results) -> None:
    places: dict[tuple[object, ...], list[_Frame]] = {}
    unknown: dict[str, None] = {}
    for one in _frames(sources, results.label):
        try:
            places.setdefault(place_of(one.source.head, one.frame), []).append(one)
        except PlaceUnknown as refusal:
            unknown[str(refusal)] = None
    several = [frames for frames in places.values() if len(frames) > 1]
    if not several:
        raise NotProcessable("; ".join(("no two images show the same place", *unknown)))
    for frames in several:
        ordered = sorted(frames, key=_Frame.time)
        for combined in run_on_set(
            results.label.operation, _Images(ordered), results.label.parameters
        ):
            used = [ordered[number] for number in combined.sources]
            results.gray(combined.values, _origin_of(used, used[0], len(results.made) + 1))


def _volume(sources: Sequence[Source], results: Results, request: Request) -> None:
    frames = _frames(sources, results.label)
    require_one_space(one.source.head for one in frames if one.frame == 0)
    stack = stack_of([grid_of(one.source.head, one.frame) for one in frames])
    ordered = [frames[number] for number in stack.order]
    volume = Volume(
        first=stack.first,
        step_mm=stack.step_mm,
        count=len(ordered),
        read=lambda k: ordered[k].values(),
        stored=_stored(ordered),
        scratch=request["folder"],
        threads=request["threads"],
        part=request["part"],
        parts=request["parts"],
    )
    origin = _origin_of(ordered, ordered[len(ordered) // 2], 0)
    for projected in results.label.operation.run(volume, results.label.parameters):
        used = [ordered[k] for k in volume.slices_of(*projected.planes)]
        made_of = replace(
            origin,
            heads=[one.source.head for one in used],
            scales=tuple(dict.fromkeys(one.source.scale(one.frame) for one in used)),
            references=_references(used),
            number=projected.number or len(results.made) + 1,
        )
        results.gray(projected.values, made_of, projected)


def _stored(frames: Sequence[_Frame]) -> StoredSlices | None:
    """Offer slices as samples, where all of them mean the same by the same sample."""
    scale = frames[0].source.scale(frames[0].frame)
    if scale.slope <= 0 or any(
        one.source.has_table or one.source.scale(one.frame) != scale for one in frames
    ):
        return None
    return StoredSlices(
        read=lambda k: frames[k].source.samples(frames[k].frame), values=scale.values
    )


def _frames(sources: Sequence[Source], label: Label) -> list[_Frame]:
    """List all frames of all sources. Raises ``NotProcessable`` where there are colours."""
    if any(source.is_color for source in sources):
        raise NotProcessable(f"{label.operation.name} takes gray images only")
    return [
        _Frame(source=source, frame=frame) for source in sources for frame in range(source.frames)
    ]


def _origin_of(used: Sequence[_Frame], like: _Frame, number: int) -> Origin:
    framed = like.source.is_framed
    return Origin(
        head=flattened(like.source.head, like.frame) if framed else like.source.head,
        scale=like.source.scale(like.frame),
        scales=tuple(dict.fromkeys(one.source.scale(one.frame) for one in used)),
        heads=[one.source.head for one in used],
        references=_references(used),
        number=number,
        is_frame=framed,
    )


def _references(used: Sequence[_Frame]) -> tuple[Reference, ...]:
    """Refer to each source once; to frames of it where not all were used."""
    by_source: dict[int, list[_Frame]] = {}
    for one in used:
        by_source.setdefault(id(one.source), []).append(one)
    heads = [some[0].source.head for some in by_source.values()]
    frames = [
        () if len(some) == some[0].source.frames else tuple(one.frame + 1 for one in some)
        for some in by_source.values()
    ]
    return references_of(heads, frames)
