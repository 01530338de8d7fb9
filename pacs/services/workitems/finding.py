"""Queries of the worklist. PS3.4 Section CC.2.8.

The columns narrow, the Data Sets decide, page by page. A question is answered in
full or, where that would be too much work, refused before the first answer.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydicom.dataset import Dataset

from pacs.core.caller import Caller
from pacs.core.errors import TooManyMatches
from pacs.services.workitems.desk import Desk
from pacs.services.workitems.encoding import whole
from pacs.services.workitems.matching import Keys, parse

PAGE_ROWS: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One match. ``all_keys_supported`` is the same for all answers to a question."""

    identifier: Dataset = field(repr=False)
    all_keys_supported: bool


def _never() -> bool:
    return False


class Finding:
    """Answers questions. Safe to use from many threads."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def search(
        self, caller: Caller, identifier: Dataset, cancelled: Callable[[], bool] = _never
    ) -> Iterator[Answer]:
        """Give one answer per match; ends early once ``cancelled``.

        Raises, before the first answer, ``IdentifierInvalid`` or ``TooManyMatches``.
        """
        keys = parse(identifier, max_uids=self._desk.max_uids)
        numbers = self._chosen(caller, keys, cancelled) if keys.returned else ()
        return self._answers(keys, numbers, cancelled)

    def _chosen(self, caller: Caller, keys: Keys, cancelled: Callable[[], bool]) -> Sequence[int]:
        """List what to look at for answers. Raises ``TooManyMatches``."""
        settings = self._desk.settings
        whose = None if caller.visibility.everything else caller.registrant
        numbers = self._desk.rows.candidates(whose, keys.narrow(), settings.max_candidates + 1)
        if len(numbers) > settings.max_candidates:
            raise TooManyMatches
        if len(numbers) <= settings.max_answers:
            return numbers
        matching = []
        for number, _ in self._matching(keys, numbers, cancelled):
            matching.append(number)
            if len(matching) > settings.max_answers:
                raise TooManyMatches
        return matching

    def _matching(
        self, keys: Keys, numbers: Sequence[int], cancelled: Callable[[], bool]
    ) -> Iterator[tuple[int, Dataset]]:
        for first in range(0, len(numbers), PAGE_ROWS):
            for row in self._desk.rows.page(numbers[first : first + PAGE_ROWS]):
                if cancelled():
                    return
                data_set = whole(row)
                if keys.match(data_set):
                    yield row.number, data_set

    def _answers(
        self, keys: Keys, numbers: Sequence[int], cancelled: Callable[[], bool]
    ) -> Iterator[Answer]:
        for _, data_set in self._matching(keys, numbers, cancelled):
            yield Answer(identifier=keys.answer(data_set), all_keys_supported=keys.all_known)
