"""The settings as frozen structs: names, units, bounds, defaults and what each is for.

``pacs.toml`` has one table per struct. The descriptions here are the only
text: the file that ``pacs init`` writes, ``pacs config show`` and the table in
docs/operations.md are made from them.
"""

from msgspec import Struct, field

from config.settings.keeping import Database, Parsing, Query, Retrieve, Storage
from config.settings.legitimacy import Legitimacy
from config.settings.network import Association, Dicom, Identity, Outbox, Serve, Subscriber
from config.settings.observing import Audit, Logging, Metrics
from config.settings.security import Tls
from config.settings.units import Section
from config.settings.work import Arrival, Commitment, Forward, Jobs, Poll, Process, Workitems

__all__ = [
    "Arrival",
    "Association",
    "Audit",
    "Commitment",
    "Database",
    "Dicom",
    "Forward",
    "Identity",
    "Jobs",
    "Legitimacy",
    "Logging",
    "Metrics",
    "Outbox",
    "Parsing",
    "Poll",
    "Process",
    "Query",
    "Retrieve",
    "Section",
    "Serve",
    "Settings",
    "Storage",
    "Subscriber",
    "Tls",
    "Workitems",
]


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything in pacs.toml."""

    dicom: Dicom = field(default_factory=Dicom)
    association: Association = field(default_factory=Association)
    legitimacy: Legitimacy = field(default_factory=Legitimacy)
    tls: Tls = field(default_factory=Tls)
    serve: Serve = field(default_factory=Serve)
    storage: Storage = field(default_factory=Storage)
    database: Database = field(default_factory=Database)
    jobs: Jobs = field(default_factory=Jobs)
    arrival: Arrival = field(default_factory=Arrival)
    parsing: Parsing = field(default_factory=Parsing)
    query: Query = field(default_factory=Query)
    retrieve: Retrieve = field(default_factory=Retrieve)
    commitment: Commitment = field(default_factory=Commitment)
    identity: Identity = field(default_factory=Identity)
    subscriber: Subscriber = field(default_factory=Subscriber)
    outbox: Outbox = field(default_factory=Outbox)
    metrics: Metrics = field(default_factory=Metrics)
    poll: Poll = field(default_factory=Poll)
    forward: Forward = field(default_factory=Forward)
    process: Process = field(default_factory=Process)
    workitems: Workitems = field(default_factory=Workitems)
    logging: Logging = field(default_factory=Logging)
    audit: Audit = field(default_factory=Audit)
