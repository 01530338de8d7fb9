"""What a Restorer promises: of a form and its recipe, the very bytes that were received, or a refusal."""

from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.filereader import read_file_meta_info

from config.settings import Retrieve
from pacs.core.errors import InstanceCorrupt, TranscodingFailed
from pacs.core.forms import NATIVE, SYNTAXES
from pacs.core.identifiers import TransferSyntaxUID
from pacs.core.restoring import Stored
from processing.datasets import recipe as recipes
from processing.datasets.recipe import Recipe, RecipeUnusable, Samples
from processing.datasets.transcode import SandboxedTranscoder
from tests.archive import data_set_offset
from tests.contracts.test_transcoder import part10
from tests.forms import BIG, EXPLICIT, encoded, image, odd_originals

SAMPLES = Samples(frames=2, frame_bytes=6, cell_bytes=2, planes=1, swap_bytes=1, tail=b"\0")


@pytest.fixture(scope="module")
def transcoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxedTranscoder]:
    made = SandboxedTranscoder(
        Retrieve(transcode_max_bytes=1 << 28), tmp_path_factory.mktemp("work")
    )
    yield made
    made.close()


def native_samples(folder: Path) -> list[Stored]:
    """Sample files that are whole and native."""
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or "malformed" in path.parts or not (at := data_set_offset(path)):
            continue
        syntax = read_file_meta_info(path).get("TransferSyntaxUID", "")
        if syntax in NATIVE:
            found.append((str(path), at, TransferSyntaxUID(syntax)))
    return found


@pytest.mark.parametrize("target", sorted(SYNTAXES))
def test_every_sample_comes_back_or_is_refused(
    target: str, transcoder: SandboxedTranscoder, samples: Path
) -> None:
    outcomes: Counter[str] = Counter()
    for original in native_samples(samples):
        outcomes[there_and_back(transcoder, original, SYNTAXES[target])] += 1
    assert outcomes["other bytes"] == 0
    assert outcomes["restored"] >= 20, outcomes


def there_and_back(
    transcoder: SandboxedTranscoder, original: Stored, syntax: TransferSyntaxUID
) -> str:
    path, offset, _ = original
    try:
        with transcoder.convert(*original, syntax) as form:
            text = transcoder.restorer.recipe(original, (form, 0, syntax))
            with transcoder.restorer.restored((form, 0, syntax), text) as data_set:
                same = Path(data_set).read_bytes() == Path(path).read_bytes()[offset:]
    except TranscodingFailed:
        return "refused"
    return "restored" if same else "other bytes"


@pytest.mark.parametrize("sop", sorted(odd_originals()))
def test_the_head_is_what_was_received_without_pixel_data(
    sop: str, transcoder: SandboxedTranscoder, tmp_path: Path
) -> None:
    syntax, wire = odd_originals()[sop]
    original = part10(tmp_path, wire, syntax)
    target = SYNTAXES["jpeg-ls"]
    with transcoder.convert(*original, target) as form:
        text = transcoder.restorer.recipe(original, (form, 0, target))
        head = transcoder.restorer.head(BytesIO(Path(form).read_bytes()), text)
    tag = b"\x7f\xe0\x00\x10" if syntax == BIG else b"\xe0\x7f\x10\x00"
    padding = wire[-510:] if sop == "1.9.17" else b""  # Data Set Trailing Padding: 12 + 498 bytes
    assert head == wire[: wire.rindex(tag)] + padding


def test_what_saves_nothing_is_refused(transcoder: SandboxedTranscoder, tmp_path: Path) -> None:
    original = part10(tmp_path, encoded(image("1.2", rows=2, columns=2)), EXPLICIT)
    target = SYNTAXES["jpeg-ls"]
    with (
        transcoder.convert(*original, target) as form,
        pytest.raises(TranscodingFailed, match="NothingSaved"),
    ):
        transcoder.restorer.recipe(original, (form, 0, target))


def test_what_is_not_native_is_refused(transcoder: SandboxedTranscoder, tmp_path: Path) -> None:
    original = part10(tmp_path, encoded(image("1.2")), EXPLICIT)
    target = SYNTAXES["jpeg-ls"]
    with transcoder.convert(*original, target) as form:
        for pair in (((form, 0, target), (form, 0, target)), (original, original)):
            with pytest.raises(TranscodingFailed, match="NotRestorable"):
                transcoder.restorer.recipe(*pair)


def test_a_damaged_recipe_is_told(transcoder: SandboxedTranscoder) -> None:
    for text in ("", "{}", "[]", '{"pixels":[5,2]}', '{"pixels":["a","b"]}', '{"pixels":[0,0]}'):
        with pytest.raises(InstanceCorrupt):
            transcoder.restorer.head(BytesIO(b"form"), text)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_recipe_reads_back_as_it_was_written(data: st.DataObject) -> None:
    """Whatever the form has in common with what was received, from everything to nothing."""
    form = data.draw(st.binary(max_size=64)) * data.draw(st.integers(0, 2_000))
    rest = form[: data.draw(st.integers(0, len(form)))] + data.draw(st.binary(max_size=40_000))
    element = sorted(data.draw(st.tuples(*[st.integers(0, len(rest))] * 2)))
    recipe = Recipe(pixels=(1, 2), element=(element[0], element[1]), samples=SAMPLES, rest=rest)
    assert recipes.loads(recipes.dumps(recipe, form), form) == recipe


def test_a_recipe_of_another_form_is_unusable() -> None:
    rest = bytes(range(256)) * 100
    recipe = Recipe(pixels=(1, 2), element=(0, 0), samples=SAMPLES, rest=rest)
    text = recipes.dumps(recipe, rest)
    try:
        assert recipes.loads(text, rest[::-1]) != recipe
    except RecipeUnusable:
        pass  # zlib noticed it


def test_what_has_too_much_beside_its_pixels_is_refused() -> None:
    rest = Random(1).randbytes(recipes.MAX_RECIPE_CHARACTERS)
    recipe = Recipe(pixels=(1, 2), element=(0, 0), samples=SAMPLES, rest=rest)
    with pytest.raises(RecipeUnusable):
        recipes.dumps(recipe, b"nothing in common")


def test_what_differs_little_costs_little() -> None:
    """A large header, of many frames say, whose elements are only written otherwise."""
    values = [f"{number:06d}".encode() for number in range(30_000)]
    implicit = b"".join(
        b"\x20\x00\x13\x00" + len(one).to_bytes(4, "little") + one for one in values
    )
    explicit = b"".join(
        b"\x20\x00\x13\x00IS" + len(one).to_bytes(2, "little") + one for one in values
    )
    recipe = Recipe(pixels=(1, 2), element=(0, 0), samples=SAMPLES, rest=implicit)
    text = recipes.dumps(recipe, explicit)
    assert len(text) < len(implicit) // 3
    assert recipes.loads(text, explicit) == recipe
