"""The settings as frozen structs: names, units, bounds, defaults and what each is for.

``pacs.toml`` has one table per struct. The descriptions here are the only
text: the file that ``pacs init`` writes, ``pacs config show`` and the table in
docs/operations.md are made from them.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Bytes = Annotated[int, Meta(ge=0, le=1 << 50)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
AETitleText = Annotated[str, Meta(min_length=1, max_length=16, pattern=r"^[\x20-\x5b\x5d-\x7e]*$")]


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One table of pacs.toml."""


class Dicom(Section, frozen=True, kw_only=True):
    """Who we are on the network and whom we talk to."""

    ae_title: Annotated[AETitleText, Meta(description="Our Application Entity title")] = "PACS"
    host: Annotated[str, Meta(description="Address to listen on")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="Port to listen on; 0 lets the system choose")] = 11112
    any_called_ae_title: Annotated[
        bool, Meta(description="Answer to any called AE title, not only to ours")
    ] = True
    loopback_trust: Annotated[
        bool, Meta(description="Take any AE from loopback as the subscriber 'local'")
    ] = True
    store_unknown_classes: Annotated[
        bool, Meta(description="Accept private and unknown SOP Classes for storage")
    ] = True
    transfer_syntax_order: Annotated[
        tuple[
            Literal["explicit-little", "lossless", "deflated", "implicit", "big-endian", "lossy"],
            ...,
        ],
        Meta(description="Our choice among the syntaxes offered in one presentation context"),
    ] = ("explicit-little", "lossless", "deflated", "implicit", "big-endian", "lossy")


class Association(Section, frozen=True, kw_only=True):
    """Bounds of the association layer."""

    max_associations: Annotated[
        Count, Meta(description="Associations served at once, by all listeners together")
    ] = 100
    max_associations_per_host: Annotated[
        Count, Meta(description="Associations served at once from one address")
    ] = 50
    max_connections: Annotated[
        Annotated[int, Meta(ge=1, le=65_536)],
        Meta(description="Open TCP connections, those not yet associated included"),
    ] = 300
    max_unassociated_per_host: Annotated[
        Count, Meta(description="Open TCP connections from one address that have not associated")
    ] = 100
    max_per_minute_per_host: Annotated[
        Count, Meta(description="Associations one address may begin in a minute")
    ] = 6_000
    max_pdu_bytes: Annotated[
        Annotated[int, Meta(ge=4_096, le=16_777_216)],
        Meta(description="Largest P-DATA-TF PDU we ask for and accept"),
    ] = 131_072
    max_associate_pdu_bytes: Annotated[
        Annotated[int, Meta(ge=4_096, le=16_777_216)],
        Meta(description="Largest A-ASSOCIATE PDU accepted"),
    ] = 262_144
    max_command_bytes: Annotated[Count, Meta(description="Largest DIMSE command set accepted")] = (
        65_536
    )
    max_identifier_bytes: Annotated[
        Count, Meta(description="Largest identifier or attribute list accepted with a request")
    ] = 1_048_576
    max_identifier_elements: Annotated[
        Count,
        Meta(
            description="Elements and sequence items accepted in such a list; they cost far more than their bytes"
        ),
    ] = 65_536
    max_queued_messages: Annotated[
        Count, Meta(description="Requests waiting on one association before it is aborted")
    ] = 16
    artim_timeout_s: Annotated[
        Seconds, Meta(description="Silence allowed before A-ASSOCIATE-RQ and after a rejection")
    ] = 15.0
    network_timeout_s: Annotated[
        Seconds, Meta(description="Silence allowed on an association, and within a PDU")
    ] = 60.0
    min_progress_bytes: Annotated[
        Count, Meta(description="Least a message under way must bring within network_timeout_s")
    ] = 4_096
    dimse_timeout_s: Annotated[
        Seconds, Meta(description="Wait for a peer's response to our request")
    ] = 60.0
    connect_timeout_s: Annotated[
        Seconds, Meta(description="Wait for a peer to take our connection")
    ] = 10.0
    drain_timeout_s: Annotated[
        Seconds, Meta(description="Time open associations get to finish when the server stops")
    ] = 20.0


class Serve(Section, frozen=True, kw_only=True):
    """The processes of the server."""

    listeners: Annotated[
        Annotated[int, Meta(ge=0, le=255)],
        Meta(description="Processes that hold associations; 0 for one per core"),
    ] = 0


class Storage(Section, frozen=True, kw_only=True):
    """Where instances are kept."""

    path: Annotated[
        str, Meta(description="Folder of the store; relative to home when not absolute")
    ] = "store"
    digest: Annotated[
        Literal["blake3", "sha256"], Meta(description="Digest of each Data Set as received")
    ] = "blake3"
    reserve_bytes: Annotated[
        Bytes, Meta(description="Free space that is never used: stores are refused 0xA700 before")
    ] = 1_073_741_824
    max_instance_bytes: Annotated[Bytes, Meta(description="Largest instance accepted")] = (
        68_719_476_736
    )
    deletion_delay_s: Annotated[
        Annotated[float, Meta(ge=0, le=31_536_000)],
        Meta(description="Time in which a deletion can be undone; then files are removed"),
    ] = 604_800.0
    compress: Annotated[
        Literal["off", "jpeg-lossless", "jpeg-ls", "jpeg-2000", "htj2k"],
        Meta(
            description="Form in which uncompressed images are held some time after their arrival, losslessly"
        ),
    ] = "off"
    compress_delay_s: Annotated[
        Annotated[float, Meta(ge=0, le=31_536_000)],
        Meta(description="Time after which what has arrived is compressed"),
    ] = 60.0
    keep_original_s: Annotated[
        Annotated[float, Meta(ge=0, le=31_536_000)],
        Meta(
            description="Time for which the file of the former form stays once another is held: it may still be read"
        ),
    ] = 3_600.0
    compress_tidy_cron: Annotated[
        str, Meta(description="When such files past their time are removed; empty is never")
    ] = "*/5 * * * *"


class Database(Section, frozen=True, kw_only=True):
    """The index and the records."""

    url: Annotated[
        str,
        Meta(
            description="Empty for SQLite in home; postgresql://user:password@host:port/name otherwise"
        ),
    ] = ""
    max_connections: Annotated[
        Count,
        Meta(
            description="Pooled connections of the server, shared among its listeners; at least 4 each"
        ),
    ] = 32
    timeout_s: Annotated[
        Seconds, Meta(description="Wait for a pooled connection or for a lock")
    ] = 30.0


class Jobs(Section, frozen=True, kw_only=True):
    """Work that outlives its request, and who does it."""

    workers: Annotated[
        Annotated[int, Meta(ge=0, le=256)],
        Meta(description="Worker processes, each running one job at a time"),
    ] = 1
    broker: Annotated[
        str,
        Meta(
            description="Empty for none; redis://host:port/0 or amqp://user:password@host:port wakes workers"
        ),
    ] = ""
    lease_s: Annotated[
        Annotated[float, Meta(ge=1, le=86_400)],
        Meta(description="Silence of a worker after which its job goes to another"),
    ] = 60.0
    poll_s: Annotated[
        Seconds, Meta(description="An idle worker looks for jobs this often, without a broker")
    ] = 0.5
    sweep_s: Annotated[
        Seconds, Meta(description="An idle worker looks for jobs this often, with a broker")
    ] = 15.0
    drain_timeout_s: Annotated[
        Seconds, Meta(description="Time a running job gets to finish when its worker stops")
    ] = 20.0
    max_log_lines: Annotated[Count, Meta(description="Lines kept of the log of one job")] = 200
    max_children: Annotated[Count, Meta(description="Parts one job may wait for")] = 10_000
    keep_ended_s: Annotated[
        Annotated[float, Meta(ge=0, le=315_360_000)],
        Meta(description="Time for which jobs that are done or cancelled stay listed"),
    ] = 604_800.0
    time_zone: Annotated[
        str, Meta(description="Time zone of the cron expressions, by its IANA name")
    ] = "UTC"
    purge_deletions_cron: Annotated[
        str,
        Meta(description="When files of deletions past their delay are removed; empty is never"),
    ] = "* * * * *"
    purge_jobs_cron: Annotated[
        str, Meta(description="When jobs past jobs.keep_ended_s are forgotten; empty is never")
    ] = "17 * * * *"


class Parsing(Section, frozen=True, kw_only=True):
    """Bounds while a Data Set's header is read."""

    max_depth: Annotated[
        Annotated[int, Meta(ge=1, le=1_000)], Meta(description="Nesting of sequences accepted")
    ] = 64
    max_header_bytes: Annotated[
        Count, Meta(description="Bytes of header elements held while parsing")
    ] = 16_777_216
    max_elements: Annotated[
        Count, Meta(description="Elements walked, those within sequences included")
    ] = 5_000_000
    max_value_bytes: Annotated[
        Count, Meta(description="Largest value taken into the index; longer ones are cut off")
    ] = 65_536


class Query(Section, frozen=True, kw_only=True):
    """Bounds of C-FIND."""

    max_matches: Annotated[
        Count, Meta(description="Matches answered; more are refused with 0xA700")
    ] = 100_000
    max_candidates: Annotated[
        Count, Meta(description="Rows looked at for keys that the index cannot decide")
    ] = 1_000_000
    page_rows: Annotated[Count, Meta(description="Rows fetched at a time")] = 500
    max_uids: Annotated[Count, Meta(description="UIDs accepted in one list")] = 10_000
    max_elements: Annotated[
        Count,
        Meta(
            description="Elements and sequence items accepted in a question, of C-MOVE and C-GET too; more are refused with 0xA700 or 0xA701"
        ),
    ] = 2_000


class Retrieve(Section, frozen=True, kw_only=True):
    """Bounds of C-MOVE and C-GET."""

    max_instances: Annotated[
        Count,
        Meta(description="Instances one request may deliver; the standard's counters hold 65535"),
    ] = 65_535
    versions: Annotated[
        Literal["first", "latest", "latest-from-same-source"],
        Meta(description="Which version of a SOP Instance is found and delivered"),
    ] = "first"
    transcode_max_bytes: Annotated[
        Bytes, Meta(description="Largest instance converted for a receiver")
    ] = 2_147_483_648
    transcode_timeout_s: Annotated[Seconds, Meta(description="Time one conversion may take")] = (
        120.0
    )


class Identity(Section, frozen=True, kw_only=True):
    """Whose patients they are."""

    issuer_of_patient_id: Annotated[
        str,
        Meta(
            max_length=64,
            description="Issuer assumed for the subscriber 'local' where a Data Set names none",
        ),
    ] = "local"


class Outbox(Section, frozen=True, kw_only=True):
    """Messages to peers that nobody asked for: N-EVENT-REPORT."""

    poll_s: Annotated[Seconds, Meta(description="How often each process looks for new events")] = (
        0.5
    )
    grace_s: Annotated[
        Seconds,
        Meta(description="Time an event waits for an association the peer opens, before we call"),
    ] = 5.0
    lease_s: Annotated[
        Annotated[float, Meta(ge=1, le=86_400)],
        Meta(description="Time after which the events of a process that died are sent by others"),
    ] = 30.0
    retry_s: Annotated[
        Seconds, Meta(description="Wait before the second attempt; doubled at each further one")
    ] = 10.0
    max_retry_s: Annotated[Seconds, Meta(description="Longest wait between two attempts")] = 1_800.0
    max_attempts: Annotated[Count, Meta(description="Attempts before an event is kept as dead")] = (
        100
    )
    expiry_s: Annotated[
        Annotated[float, Meta(gt=0, le=31_536_000)],
        Meta(description="Time in which an event is worth sending; afterwards it is kept as dead"),
    ] = 604_800.0
    max_events: Annotated[Count, Meta(description="Events waiting in all; more are refused")] = (
        50_000
    )
    max_events_per_peer: Annotated[
        Count, Meta(description="Events waiting for one peer; more are refused")
    ] = 5_000
    max_event_bytes: Annotated[Count, Meta(description="Largest Event Information")] = 1_048_576
    max_calls: Annotated[
        Annotated[int, Meta(ge=1, le=1_000)],
        Meta(description="Peers one process calls at once"),
    ] = 4


class Logging(Section, frozen=True, kw_only=True):
    """What the log says. It never holds patient data."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least severity logged")
    ] = "info"
    format: Annotated[
        Literal["text", "json"], Meta(description="Form of the lines on standard error")
    ] = "text"


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything in pacs.toml."""

    dicom: Dicom = field(default_factory=Dicom)
    association: Association = field(default_factory=Association)
    serve: Serve = field(default_factory=Serve)
    storage: Storage = field(default_factory=Storage)
    database: Database = field(default_factory=Database)
    jobs: Jobs = field(default_factory=Jobs)
    parsing: Parsing = field(default_factory=Parsing)
    query: Query = field(default_factory=Query)
    retrieve: Retrieve = field(default_factory=Retrieve)
    identity: Identity = field(default_factory=Identity)
    outbox: Outbox = field(default_factory=Outbox)
    logging: Logging = field(default_factory=Logging)
