"""Find: which entities match a question, and what is said about each. PS3.4 Annex C.4.1.

The index narrows, matching decides, and the bounds are checked before the
first answer: a question is answered in full or refused.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from pydicom.dataset import Dataset

from config.settings import Query as QuerySettings
from pacs.core.attributes import BY_KEYWORD, UNIQUE_KEYS
from pacs.core.caller import Caller
from pacs.core.conditions import Under
from pacs.core.errors import TooManyMatches
from pacs.core.identifiers import AETitle
from pacs.core.ports import FindIndex
from pacs.services.find.answers import Answers
from pacs.services.find.entities import Entity, HeaderReader
from pacs.services.find.identifiers import Key, Query, Question, Source, parse
from pacs.services.find.narrowing import ADJUSTED_PAIRS, Narrowed, narrow

FIRST_PAGE_ROWS: Final = 32
"""The first answers shall not wait for many rows; each page is four times the one before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One match. ``all_keys_supported`` is the same for all answers to a question.

    ``more_at_once``: there is more to say, and nothing is left to be read for it.
    """

    identifier: Dataset = field(repr=False)
    all_keys_supported: bool
    more_at_once: bool = False


def _never() -> bool:
    return False


class Find:
    """Answers questions. Safe to use from many threads."""

    def __init__(
        self,
        *,
        index: FindIndex,
        read_header: HeaderReader,
        settings: QuerySettings,
        ae_title: AETitle,
    ) -> None:
        self._index = index
        self._read_header = read_header
        self._settings = settings
        self._ae_title = ae_title

    def search(
        self, caller: Caller, question: Question, cancelled: Callable[[], bool] = _never
    ) -> Iterator[Answer]:
        """Give one answer per match; ends early once ``cancelled``.

        Raises, before the first answer, ``IdentifierInvalid`` or ``TooManyMatches``.
        """
        query = parse(question, self._settings.max_uids, caller.purpose)
        run = _Run(self._index, self._read_header, self._settings, caller, query, cancelled)
        return self._answers(run, run.chosen())

    def _answers(self, run: "_Run", rows: Sequence[int]) -> Iterator[Answer]:
        answers = Answers(run.query, _return_keys(run.query), self._ae_title)
        all_keys_supported = run.query.all_keys_supported
        for entity in run.matching(rows):
            yield Answer(
                identifier=answers.of(entity),
                all_keys_supported=all_keys_supported,
                more_at_once=entity.more_at_once,
            )


class _Run:
    """One question on its way through the index."""

    def __init__(
        self,
        index: FindIndex,
        read_header: HeaderReader,
        settings: QuerySettings,
        caller: Caller,
        query: Query,
        cancelled: Callable[[], bool],
    ) -> None:
        self._index = index
        self._read_header = read_header
        self._settings = settings
        self._visibility = caller.visibility
        self._cancelled = cancelled
        self._narrowed: Narrowed = narrow(query)
        self._here = query.here
        self._below = query.below
        # Where the index decides, all rows of a page match; headers are files that must be read.
        from_rows = all(one.source is not Source.HEADER for one in query.keys)
        self._at_once = self._narrowed.exact and from_rows and query.offset_minutes is None
        self.query = query

    def chosen(self) -> Sequence[int]:
        """List the rows to be looked at. Raises ``TooManyMatches``."""
        most = self._settings.max_matches
        rows = self._candidates(most + 1)
        if len(rows) <= most:
            return rows
        if self._narrowed.exact:
            raise TooManyMatches
        return self._thinned()

    def _thinned(self) -> Sequence[int]:
        """Let matching decide about more rows than may be answered, within a bound of their own."""
        rows = self._candidates(self._settings.max_candidates + 1)
        if len(rows) > self._settings.max_candidates:
            raise TooManyMatches
        kept = array("q")
        for entity in self._matching(rows, _wanted(self.query, matched_only=True)):
            kept.append(entity.row)
            if len(kept) > self._settings.max_matches:
                raise TooManyMatches
        return kept

    def _candidates(self, limit: int) -> Sequence[int]:
        return self._index.candidates(
            self.query.level, self._narrowed.conditions, self._visibility, limit=limit
        )

    def matching(self, rows: Sequence[int]) -> Iterator[Entity]:
        """Give the entities among ``rows`` that match, page by page."""
        return self._matching(rows, _wanted(self.query))

    def _matching(self, rows: Sequence[int], wanted: frozenset[str]) -> Iterator[Entity]:
        for entity in self._entities(self.query, rows, wanted):
            if entity.matches(self._here) and self._matches_below(entity):
                yield entity

    def _entities(
        self, query: Query, rows: Sequence[int], wanted: frozenset[str]
    ) -> Iterator[Entity]:
        start, size = 0, min(FIRST_PAGE_ROWS, self._settings.page_rows)
        while start < len(rows):
            if self._cancelled():
                return
            page = rows[start : start + size]
            start, size = start + size, min(4 * size, self._settings.page_rows)
            left = len(page) + (start >= len(rows))  # after the last row comes the end
            for found in self._index.rows(query.level, page, wanted, self._visibility):
                left -= 1
                at_once = self._at_once and left > 0
                yield Entity(found, query, self._read_header, more_at_once=at_once)

    def _matches_below(self, entity: Entity) -> bool:
        """Relational: look for one entity below that matches all keys below together."""
        below = self._below
        if not below or self._narrowed.exact_below:
            return True
        deepest = max((key.level for key in below), key=lambda one: one.depth)
        deeper = replace(self.query, level=deepest)
        rows = self._index.candidates(
            deepest,
            [*self._narrowed.conditions, Under(level=self.query.level, row=entity.row)],
            self._visibility,
            limit=self._settings.max_candidates,
        )
        entities = self._entities(deeper, rows, _wanted(deeper, matched_only=True))
        return any(one.matches(below) for one in entities)


def _return_keys(query: Query) -> tuple[Key, ...]:
    """The keys asked for, and the level's own unique key."""
    unique = BY_KEYWORD[UNIQUE_KEYS[query.level]]
    if any(one.tag == unique.tag for one in query.keys):
        return query.keys
    own = Key(
        tag=unique.tag,
        vr=unique.vr,
        keyword=unique.keyword,
        source=Source.INDEX,
        level=unique.level,
    )
    return (*query.keys, own)


def _wanted(query: Query, *, matched_only: bool = False) -> frozenset[str]:
    """Keywords whose values are needed: of all keys, or to match only."""
    keys = [one for one in query.keys if one.matcher or not matched_only]
    wanted = {one.keyword for one in keys} | {UNIQUE_KEYS[query.level]}
    if query.offset_minutes is not None:
        wanted.add("TimezoneOffsetFromUTC")
        for pair in ADJUSTED_PAIRS:
            if wanted.intersection(pair):
                wanted.update(pair)
    return frozenset(wanted)
