"""Holding what is selected in another form, some at a time, on every core the codecs get.

Decides which instances are taken in which order and what is counted; knows
neither tables nor codecs. What it is stopped in the middle of stays as it is.
"""

import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from pacs.core.caller import Caller
from pacs.core.form_ports import FormIndex
from pacs.core.forms import Outcome, Scope
from pacs.core.ports import AuditTrail
from pacs.core.records import Held
from pacs.services.compress.reencode import Reencoder
from pacs.services.compress.tally import Result, Tally

_EACH: Final = 2
"""Instances claimed at a time for each worker: a crash holds up so many."""
_PAGE: Final = 200
"""Rows read at a time; whether they still hold is looked at when they are claimed."""
_STEPS: Final = 4
"""Tasks of the sandbox that one instance needs, with one to spare."""
_WRITING_S: Final = 300.0
"""What writing and waiting may take besides."""

Advance = Callable[[int], None]


class Compression:
    """Changes the forms in which instances are held."""

    def __init__(
        self,
        *,
        index: FormIndex,
        reencoder: Reencoder,
        audit: AuditTrail,
        workers: int,
        task_s: Callable[[int], float],
    ) -> None:
        """``task_s`` says what one task may take for an instance of so many bytes as it was received."""
        self._index = index
        self._reencoder = reencoder
        self._audit = audit
        self._workers = workers
        self._task_s = task_s
        self.lease_s = _lease_s(task_s(0))

    def count(
        self, caller: Caller, scope: Scope, target: str | None, *, again: bool = False
    ) -> int:
        """How many instances ``run`` would look at."""
        return self._index.count(scope, target, again=again)

    def run(
        self,
        caller: Caller,
        scope: Scope,
        target: str | None,
        *,
        again: bool = False,
        advance: Advance = lambda _: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Tally:
        """Hold everything in ``scope`` as ``target``, or with ``None`` as it was received.

        ``again`` takes those too that were refused before. ``advance`` is told
        of those done, ``cancelled`` is asked now and then. Raises
        ``RecordsFailed``; what was done until then is done.
        """
        tally = Tally()
        try:
            with ThreadPoolExecutor(self._workers, thread_name_prefix="compress") as threads:
                for some in self._batches(scope, target, again=again):
                    if cancelled():
                        break
                    for result in self._changed(threads, some, target):
                        tally.count(result)
                    advance(len(some))
        finally:
            if tally.outcomes:
                to = target or "as-received"
                self._audit.record("re-encoded", caller, target=to, **tally.facts())
        return tally

    def _batches(
        self, scope: Scope, target: str | None, *, again: bool
    ) -> Iterator[Sequence[Held]]:
        after, together = 0, _EACH * self._workers
        while page := self._index.page(scope, target, again=again, after=after, limit=_PAGE):
            after = page[-1][0]
            for start in range(0, len(page), together):
                yield [held for _, held in page[start : start + together]]

    def _changed(
        self, threads: ThreadPoolExecutor, some: Sequence[Held], target: str | None
    ) -> Iterator[Result]:
        token = uuid.uuid4().hex
        largest = max(self._task_s(_received_bytes(held)) for held in some)
        mine = self._index.claim(some, token, _lease_s(largest))
        for _ in range(len(some) - len(mine)):
            yield Result(outcome=Outcome.PASSED_OVER)
        yield from threads.map(lambda held: self._reencoder.change(held, target, token), mine)


def _lease_s(task_s: float) -> float:
    return _EACH * _STEPS * task_s + _WRITING_S


def _received_bytes(held: Held) -> int:
    return held.place.size_bytes if held.form is None else held.form.original_bytes
