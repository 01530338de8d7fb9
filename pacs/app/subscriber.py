"""Subscribers put together from the archive's parts, for the command line and for the gate."""

from typing import TYPE_CHECKING

from config.settings import Subscriber as Bounds
from pacs.core.ports import AuditTrail
from pacs.services.subscriber import Contracts, Enrolment, Exchange, Terms
from pacs.services.subscriber.desk import Desk
from storage.database.connection import Database
from storage.database.subscriber import ContractTable

if TYPE_CHECKING:
    from pacs.app.archive import Archive


def contracts(archive: "Archive") -> Contracts:
    """The life of contracts."""
    return Contracts(_desk_of(archive))


def terms(archive: "Archive") -> Terms:
    """What contracts say."""
    return Terms(_desk_of(archive))


def exchange(archive: "Archive") -> Exchange:
    """Contracts as a file."""
    return Exchange(_desk_of(archive))


def enrolments(database: Database, audit: AuditTrail, bounds: Bounds) -> Enrolment:
    """Devices that introduce themselves (``pacs.core.contract.Enrolments``), and their codes."""
    return Enrolment(Desk(ContractTable(database), audit, bounds))


def _desk_of(archive: "Archive") -> Desk:
    return Desk(ContractTable(archive.database), archive.audit, archive.settings.subscriber)
