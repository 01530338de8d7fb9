"""Attribute matching, rule by rule. PS3.4 Section C.2.2.2."""

import json
import re
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pacs.core import text as texts
from pacs.core.errors import IdentifierInvalid
from pacs.services.find.keys import Rules, items_matcher, matcher_of
from pacs.services.find.matching import matches_text, name_matcher

PLAIN = Rules(fuzzy=False, offset_minutes=None, max_uids=3)


def matches(vr: str, key: str, value: str, rules: Rules = PLAIN) -> bool:
    matcher = matcher_of(vr, key, 0x00100010, rules)
    return matcher is None or matches_text(matcher, vr, value)


@given(st.text("ab*?[", max_size=8), st.text("ab[", max_size=8))
def test_wildcards_are_those_of_a_regular_expression(pattern: str, text: str) -> None:
    reference = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    assert texts.wildcard_matches(pattern, text) is (re.fullmatch(reference, text) is not None)


def test_a_hostile_pattern_takes_no_longer_than_its_length_times_the_text() -> None:
    assert not texts.wildcard_matches("*a" * 500 + "b", "a" * 5_000)


@given(st.text(min_size=1, max_size=5), st.text(max_size=3))
def test_the_next_prefix_is_above_all_that_begin_with_it(prefix: str, rest: str) -> None:
    above = texts.next_prefix(prefix)
    assert above is None or prefix + rest < above


@pytest.mark.parametrize(
    ("vr", "key", "value", "expected"),
    [
        ("LO", "Head", "Head", True),
        ("LO", "head", "Head", False),
        ("LO", "", "", True),
        ("LO", "*", "", True),
        ("LO", "**", "", True),
        ("LO", "?", "", False),
        ("LO", "H?ad*", "Head CT", True),
        ("LO", "h*", "Head", False),
        ("CS", "CT\\MR", "MR", True),
        ("CS", "PRIMARY", "ORIGINAL\\PRIMARY", True),
        ("CS", "ORIGINAL*PRIMARY", "ORIGINAL\\PRIMARY", False),
        ("LT", "a\\b", "a\\b", True),
        ("UI", "1.2\\1.3", "1.3", True),
        ("UI", "1.2", "1.2.3", False),
        ("IS", "1", "01", True),
        ("DS", "1.50", "1.5", True),
        ("DS", "1.5", "abc", False),
        ("DA", "20240501", "2024.05.01", True),
        ("DA", "20240501-20240503", "20240503", True),
        ("DA", "20240501-20240503", "20240504", False),
        ("DA", "-20240503", "19000101", True),
        ("DA", "20240503-", "20240502", False),
        ("DA", "20240501-", "", False),
        ("TM", "2230", "223000.0", True),
        ("TM", "2230", "223001", False),
        ("TM", "10-1159", "115959.999999", True),
        ("TM", "10-1159", "120000", False),
        ("TM", "1000-", "095959", False),
        ("TM", "-10", "105959", True),
        ("DT", "20240501103000", "20240501103000.000", True),
        ("DT", "20240501103000+0200", "20240501083000+0000", True),
        ("DT", "20240501-0500-202405", "20240501050000+0000", True),
        ("DT", "20240501-0500-202405", "20240501045959+0000", False),
        ("DT", "2023-2024", "20241231235959.999999", True),
        ("DT", "2023-2024", "20250101", False),
        ("DT", "20240501-", "20240501", True),
        ("PN", "muller^jorg", "Müller^Jörg", True),
        ("PN", "MÜLLER^JÖRG^^", "Muller^Jorg", True),
        ("PN", "Muller", "Muller^Jorg", False),
        ("PN", "Mull*", "MÜLLER^J", True),
        ("PN", "Doe^*", "Doe", True),
        ("PN", "Doe^?*", "Doe", False),
        ("PN", "Doe^*", "Does", False),
        ("PN", "山田*", "YAMADA^Tarou=山田^太郎=やまだ^たろう", True),
        ("PN", "yamada*=山*", "YAMADA^Tarou=山田^太郎", True),
        ("PN", "yamada*=川*", "YAMADA^Tarou=山田^太郎", False),
        ("PN", "=yamada*", "YAMADA^Tarou=山田^太郎", False),
        ("PN", "か", "が", False),
        ("PN", "Weiss", "WEIß", True),
        ("PN", "B*", "Ann\\Bob", True),
        ("PN", "*", "", True),
        ("PN", "A*", "", False),
    ],
)
def test_match(vr: str, key: str, value: str, *, expected: bool) -> None:
    assert matches(vr, key, value) is expected


@pytest.mark.parametrize(
    ("vr", "key"),
    [
        ("UI", "1.2*"), ("UI", "a.b"), ("UI", "1\\2\\3\\4"), ("DA", "2024*"), ("DA", "20241301"),
        ("DA", "-"), ("DA", "yesterday"), ("TM", "25"), ("TM", "10-9999"), ("IS", "1?"),
        ("IS", "one"), ("DT", "20240230"), ("DT", "-"), ("AS", "04?Y"),
    ],
)  # fmt: skip
def test_values_no_kind_of_matching_takes_are_refused(vr: str, key: str) -> None:
    with pytest.raises(IdentifierInvalid) as refusal:
        matcher_of(vr, key, 0x00080020, PLAIN)
    assert refusal.value.offending_elements == (0x00080020,)


@pytest.mark.parametrize(
    ("vr", "key"),
    [("LO", "*a" * 600), ("PN", "a^*" * 400), ("PN", "a" * 2_000), ("LO", "\\".join("abcdef"))],
)
def test_keys_that_would_cost_more_than_any_real_one_are_refused(vr: str, key: str) -> None:
    with pytest.raises(IdentifierInvalid):
        matcher_of(vr, key, 0x00080020, PLAIN)
    assert matcher_of("UT", "a" * 2_000, 0x00080020, PLAIN) is not None


@given(st.dates(), st.dates(), st.dates())
def test_a_date_range_holds_its_ends_and_all_between(low: date, high: date, day: date) -> None:
    year = "{:%m%d}".format
    key, value = (f"{one.year:04d}{year(one)}" for one in (low, day))
    until = f"{high.year:04d}{year(high)}"
    assert matches("DA", f"{key}-{until}", value) is (low <= day <= high)


@given(st.times(), st.integers(1, 3))
def test_a_truncated_time_reaches_to_its_last_instant(moment: object, parts: int) -> None:
    full = f"{moment:%H%M%S.%f}"
    assert matches("TM", f"-{full[: 2 * parts]}", full)
    assert matches("TM", f"{full[: 2 * parts]}-", full)


@given(st.text(max_size=12))
def test_folding_a_name_twice_changes_nothing(name: str) -> None:
    once = texts.fold_name(name)
    assert texts.fold_name(once) == once


@given(st.lists(st.text("ABÄéxß", min_size=1, max_size=5), min_size=1, max_size=5))
def test_a_name_matches_itself_in_any_case_and_with_trailing_carets(parts: list[str]) -> None:
    name = "^".join(parts)
    for key in (name, name.lower(), name + "^^", name + "^*"):
        assert matches("PN", key, name)


def test_fuzzy_names_sound_alike_in_any_order_and_only_where_accepted() -> None:
    fuzzy = Rules(fuzzy=True, offset_minutes=None, max_uids=1)
    for key in ("Mueller", "JOERG^MILLER", "Jörg Mül*"):
        assert matches("PN", key, "Müller^Jörg", fuzzy)
        assert not matches("PN", key, "Müller^Jörg")
    assert not matches("PN", "Schmidt", "Müller^Jörg", fuzzy)
    assert not matches("PN", "Mueller^Anna", "Müller^Jörg", fuzzy)


@pytest.mark.parametrize(
    ("word", "code"),
    [("robert", "R163"), ("rupert", "R163"), ("tymczak", "T522"), ("pfister", "P236"),
     ("honeyman", "H555"), ("ashcraft", "A261"), ("山田", "山田")],
)  # fmt: skip
def test_sounds_are_those_of_soundex(word: str, code: str) -> None:
    assert texts.word_sound(word) == code
    assert texts.name_sounds(f"{word}^{word}") == f" {code} "


def test_a_single_wildcard_name_asks_for_nothing() -> None:
    assert name_matcher("*", fuzzy=False) is None
    assert name_matcher("^^=*", fuzzy=True) is None


def _code(value: str, scheme: str, name: str = "") -> dict[str, object]:
    return {
        "00080100": {"vr": "SH", "Value": [value]},
        "00080102": {"vr": "SH", "Value": [scheme]},
        "00080104": {"vr": "LO", "Value": [name]} if name else {"vr": "LO"},
    }


def _sequence(*items: dict[str, str]) -> DataElement:
    made = []
    for values in items:
        item = Dataset()
        for keyword, value in values.items():
            setattr(item, keyword, value)
        made.append(item)
    return DataElement(0x00081032, "SQ", Sequence(made))


def test_one_item_of_a_sequence_has_to_match_all_keys() -> None:
    stored = json.dumps([_code("A", "99X", "Head"), _code("B", "99Y")])
    both = items_matcher(_sequence({"CodeValue": "B", "CodingSchemeDesignator": "99Y"}), PLAIN)
    mixed = items_matcher(_sequence({"CodeValue": "A", "CodingSchemeDesignator": "99Y"}), PLAIN)
    wild = items_matcher(_sequence({"CodeMeaning": "H*", "CodeValue": ""}), PLAIN)
    assert both is not None
    assert mixed is not None
    assert wild is not None
    assert matches_text(both, "SQ", stored)
    assert not matches_text(mixed, "SQ", stored)
    assert matches_text(wild, "SQ", stored)
    assert not matches_text(wild, "SQ", "")


def test_a_sequence_key_without_values_is_universal_and_two_items_are_refused() -> None:
    assert items_matcher(_sequence(), PLAIN) is None
    assert items_matcher(_sequence({}), PLAIN) is None
    assert items_matcher(_sequence({"CodeValue": ""}), PLAIN) is None
    with pytest.raises(IdentifierInvalid):
        items_matcher(_sequence({}, {}), PLAIN)


def test_sequences_within_sequences_match_too() -> None:
    inner = {"0040A043": {"vr": "SQ", "Value": [_code("A", "99X")]}}
    item, name = Dataset(), Dataset()
    name.CodeValue = "A"
    item.ConceptNameCodeSequence = [name]
    matcher = items_matcher(DataElement(0x00081032, "SQ", Sequence([item])), PLAIN)
    assert matcher is not None
    assert matches_text(matcher, "SQ", json.dumps([inner]))
    name.CodeValue = "B"
    other = items_matcher(DataElement(0x00081032, "SQ", Sequence([item])), PLAIN)
    assert other is not None
    assert not matches_text(other, "SQ", json.dumps([inner]))


@given(st.datetimes(), st.integers(-720, 720), st.integers(-720, 720))
def test_instants_are_compared_across_offsets(moment: object, one: int, two: int) -> None:
    from datetime import datetime

    assert isinstance(moment, datetime)
    if not 1 < moment.year < 9999:
        return
    there = moment + timedelta(minutes=two - one)

    def said(clock: datetime, minutes: int) -> str:
        hours, rest = divmod(abs(minutes), 60)
        sign = "-" if minutes < 0 else "+"
        return f"{clock.year:04d}{clock:%m%d%H%M%S.%f}{sign}{hours:02d}{rest:02d}"

    assert matches("DT", said(moment, one), said(there, two))
    assert not matches("DT", said(moment, one), said(there + timedelta(seconds=1), two))
