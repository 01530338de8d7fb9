"""One found entity as a query sees it: the value of every key, whatever its source.

Owns timezone query adjustment (PS3.4 Section C.2.2.2.1.3) and the reading of stored
headers. An entity without Timezone Offset From UTC is taken as it is.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from pacs.core.conditions import Found
from pacs.core.errors import IdentifierInvalid, PacsError
from pacs.core.identifiers import TransferSyntaxUID
from pacs.core.records import Place
from pacs.core.text import date_time_bounds, date_time_key, normal_time, offset_minutes
from pacs.services.find.identifiers import TIMEZONE_OFFSET, Combined, Key, Query, Source
from pacs.services.find.keys import element_of, element_text
from pacs.services.find.matching import matches_text
from pacs.services.find.narrowing import ADJUSTED_PAIRS

HeaderReader = Callable[[Place, TransferSyntaxUID], Dataset]
"""Reads a stored Data Set up to its pixel data. Raises ``PacsError``."""


class Entity:
    """What is known of one entity. Its header is read when a key first needs it."""

    def __init__(
        self, found: Found, query: Query, read_header: HeaderReader, *, more_at_once: bool = False
    ) -> None:
        self.more_at_once = more_at_once
        self._found = found
        self._query = query
        self._read_header = read_header
        self._header: Dataset | None = None
        self._offset = self._own_offset() if query.offset_minutes is not None else None
        self._values = self._adjusted(found.values)

    @property
    def row(self) -> int:
        """Row number of the entity at the question's level."""
        return self._found.row

    def text(self, key: Key) -> str:
        """Give the text of a key's attribute; empty where it has none."""
        match key.source:
            case Source.INDEX | Source.COMPUTED:
                return self._values.get(key.keyword, "")
            case Source.ARCHIVE:
                return self._archive_text(key.keyword)
            case Source.HEADER:
                element = self.element(key)
                return "" if element is None else self._header_text(element)
            case Source.NOWHERE:
                return ""

    def element(self, key: Key) -> DataElement | None:
        """Give a key's element as the stored header has it, a private one from its creator's block."""
        header = self.header()
        tag = key.tag
        if key.creator:
            try:
                block = header.private_block(tag >> 16, key.creator)
            except KeyError:
                return None
            tag = int(block.get_tag(tag & 0xFF))
        if tag not in header:
            return None
        try:
            return element_of(header, tag)
        except IdentifierInvalid:
            return None  # kept as it was received, but no value can be read from it

    def matches(self, keys: tuple[Key, ...]) -> bool:
        """Tell whether the entity matches all of ``keys``."""
        pairs = [one for one in self._query.combined if one.date in keys or one.time in keys]
        paired = {key.tag for one in pairs for key in (one.date, one.time)}
        return all(self._within(one) for one in pairs) and all(
            key.matcher is None or matches_text(key.matcher, key.vr, self.text(key))
            for key in keys
            if key.tag not in paired
        )

    def _within(self, pair: Combined) -> bool:
        moment = date_time_key(self.text(pair.date), self.text(pair.time))
        has_time = len(moment) > 8
        return has_time and pair.low <= moment and (not pair.high or moment <= pair.high)

    # --- where values come from ---------------------------------------------------------

    def header(self) -> Dataset:
        """Read the stored header once; an unreadable one has no attributes."""
        if self._header is None:
            self._header = Dataset()
            place, syntax = self._found.place, self._found.transfer_syntax_uid
            if place is not None and syntax is not None:
                try:
                    self._header = self._read_header(place, syntax)
                except PacsError:
                    # Damage is found and reported by verification; the rest can still be answered.
                    self._header = Dataset()
        return self._header

    def _archive_text(self, keyword: str) -> str:
        if keyword == "Registrant":
            return self._found.registrant
        if keyword == "InstanceAvailability":
            return "ONLINE"
        if keyword == "Purpose":
            return self._query.purpose
        received = datetime.fromisoformat(self._found.received_utc).astimezone(UTC)
        return received.strftime("%Y%m%d%H%M%S.%f+0000")

    def _header_text(self, element: DataElement) -> str:
        if element.VR == "SQ":
            items = [one.to_json_dict(suppress_invalid_tags=True) for one in element.value or []]
            return json.dumps(items, ensure_ascii=False)
        text = element_text(element)
        if element.VR != "DT" or self._offset is None or not text:
            return text
        return "\\".join(self._with_offset(one) for one in text.split("\\"))

    def _with_offset(self, value: str) -> str:
        bounds = date_time_bounds(value)
        if self._offset is None or bounds is None or bounds[2] is not None:
            return value
        hours, minutes = divmod(abs(self._offset), 60)
        return f"{value}{'-' if self._offset < 0 else '+'}{hours:02d}{minutes:02d}"

    # --- timezone -------------------------------------------------------------------------

    def _own_offset(self) -> int | None:
        text = self._found.values.get("TimezoneOffsetFromUTC", "")
        if not text and self._found.place is not None and TIMEZONE_OFFSET in self.header():
            text = element_text(element_of(self.header(), TIMEZONE_OFFSET))
        return offset_minutes(text)

    def _adjusted(self, values: Mapping[str, str]) -> Mapping[str, str]:
        """Move dates and times to the offset the question names."""
        asked = self._query.offset_minutes
        if asked is None or self._offset is None or asked == self._offset:
            return values
        moved = dict(values)
        for date, time in ADJUSTED_PAIRS:
            moment = date_time_key(values.get(date, ""), values.get(time, ""))
            if len(moment) > 8:
                moved[date], moved[time] = _shifted(moment, asked - self._offset)
        return moved


def _shifted(moment: str, minutes: int) -> tuple[str, str]:
    date, time = moment[:8], moment[8:]
    clock = datetime(int(date[:4]), int(date[4:6]), int(date[6:8]), tzinfo=UTC)
    try:
        clock += timedelta(hours=int(time[:2]), minutes=int(time[2:4]) + minutes)
    except OverflowError:
        return date, time
    rest = normal_time(time) or time
    day = f"{clock.year:04d}{clock.month:02d}{clock.day:02d}"
    return day, f"{clock:%H%M}{rest[4:].removesuffix('.000000')}"
