"""What is measured of an archive: depth and age of queues, what waits for peers, room. No patient data.

Queues carry AE titles; only those in which something waits, runs or has failed
are named, so there are no more labels than work.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from pacs.app.archive import Archive
from pacs.app.audit import audit_figures
from pacs.core.caller import admin
from pacs.core.work import JobDepth, QueueHold
from pacs.observe.metrics import Figure, serving_metrics


def figures(archive: Archive) -> Sequence[Figure]:
    """Measure now. Raises ``RecordsFailed``."""
    caller = admin("metrics")
    depths, holds = archive.jobs.load(caller), archive.jobs.holds(caller)
    return [
        _by_state("pacs_jobs", "Jobs by queue and state", depths, lambda one: one.jobs),
        _by_state(
            "pacs_jobs_oldest_seconds",
            "How long the oldest job of a queue has been in a state",
            depths,
            lambda one: one.oldest_s,
        ),
        _by_queue(
            "pacs_queue_held_seconds",
            "How long a queue is still held because its peer is away",
            holds,
            lambda one: one.held_s,
        ),
        _by_queue(
            "pacs_queue_failures",
            "Failures in a row of a queue whose peer is away",
            holds,
            lambda one: one.failures,
        ),
        Figure(
            name="pacs_outbox_events",
            about="Events that peers have not confirmed: waiting, or given up as dead",
            labels=("state",),
            values={(state,): count for state, count in archive.outbox.depths(caller).items()},
        ),
        *audit_figures(archive),
        Figure(
            name="pacs_store_free_bytes",
            about="Bytes that may still be stored above the reserve",
            values={(): archive.store.free_bytes()},
        ),
    ]


def _by_state(
    name: str, about: str, depths: Iterable[JobDepth], value: Callable[[JobDepth], float]
) -> Figure:
    values: dict[tuple[str, ...], float] = {
        (one.queue, one.state.value): value(one) for one in depths
    }
    return Figure(name=name, about=about, labels=("queue", "state"), values=values)


def _by_queue(
    name: str, about: str, holds: Iterable[QueueHold], value: Callable[[QueueHold], float]
) -> Figure:
    values: dict[tuple[str, ...], float] = {(one.queue,): value(one) for one in holds}
    return Figure(name=name, about=about, labels=("queue",), values=values)


@contextmanager
def measured(archive: Archive) -> Iterator[int | None]:
    """Serve the figures over HTTP for the block where the settings say so; gives the port."""
    settings = archive.settings.metrics
    if not settings.port:
        yield None
        return
    with serving_metrics(settings.host, settings.port, lambda: figures(archive)) as port:
        yield port
