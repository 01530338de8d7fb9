"""What we provide, one line each, in the form every plug-in has."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pacs.app import (
    chores,
    commitment,
    compress,
    forward,
    poll,
    process,
    profile,
    quiet,
    route,
    workitems,
)
from pacs.app.extension import Attached, Extension
from pacs.association.sop_classes import STORAGE
from scp import find, retrieve, store, verification
from scp.service_class import ServiceClass

if TYPE_CHECKING:
    from pacs.app.archive import Archive


def _service(name: str, describe: Callable[["Archive"], ServiceClass]) -> Extension:
    """One of our services, without settings or tables of its own."""
    return Extension(
        name=name, attach=lambda archive, _: Attached(service_classes=(describe(archive),))
    )


OURS: tuple[Extension, ...] = (
    _service("verification", lambda _: verification.verification()),
    _service(
        "store",
        lambda archive: store.service_class(
            archive.ingest,
            STORAGE,
            any_other_class=archive.settings.dicom.store_unknown_classes,
            preferred=archive.retrieve.preferred,
        ),
    ),
    Extension(name="commitment", attach=commitment.attach),
    _service("find", lambda archive: find.service_class(archive.find)),
    _service(
        "retrieve",
        lambda archive: retrieve.service_class(
            archive.retrieve,
            max_uids=archive.settings.query.max_uids,
            pending_interval_s=archive.settings.retrieve.pending_interval_s,
        ),
    ),
    Extension(name="chores", attach=chores.attach),
    Extension(name="quiet", attach=quiet.attach),
    Extension(name="route", attach=route.attach),
    Extension(name="poll", attach=poll.attach),
    Extension(name="forward", attach=forward.attach),
    Extension(name="compress", attach=compress.attach),
    Extension(name="workitems", attach=workitems.attach),
    Extension(name="process", attach=process.attach),
    Extension(name="profile", attach=profile.attach),
)


def service_classes(archive: "Archive") -> tuple[ServiceClass, ...]:
    """Everything a peer may negotiate with this archive."""
    return tuple(
        one for attached in archive.extensions.values() for one in attached.service_classes
    )
