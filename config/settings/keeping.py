"""Where instances and rows are kept, and the bounds of what is read and delivered."""

from typing import Annotated, Literal

from msgspec import Meta

from config.settings.units import Bytes, Count, Seconds, Section


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
    transcode_timeout_s: Annotated[
        Seconds,
        Meta(
            description="Processor time one conversion may use besides that for its pixels, and how long it may rest"
        ),
    ] = 120.0
    transcode_s_per_megapixel: Annotated[
        Annotated[float, Meta(ge=0, le=3_600)],
        Meta(
            description="Processor time it may use besides for each million samples of its pixels, in seconds"
        ),
    ] = 2.0
    pending_interval_s: Annotated[
        Annotated[float, Meta(ge=0.1, le=60)],
        Meta(
            description="Pending responses are repeated so often while no sub-operation ends, in seconds"
        ),
    ] = 15.0
    converters: Annotated[
        Annotated[int, Meta(ge=0, le=1_024)],
        Meta(
            description="Processes that convert, for each listener and worker; 0 for one per core"
        ),
    ] = 0
    convert_ahead: Annotated[
        Annotated[int, Meta(ge=0, le=4_096)],
        Meta(
            description="Instances converted before their turn, by each process; 0 for two per core"
        ),
    ] = 0
    convert_ahead_bytes: Annotated[
        Bytes, Meta(description="Bytes of instances converted before their turn, by each process")
    ] = 536_870_912
    compressed_order: Annotated[
        tuple[
            Literal["jpeg-ls", "jpeg-2000", "htj2k", "jpeg-lossless", "jpeg-lossless-57", "rle"],
            ...,
        ],
        Meta(
            description="Our choice for peers that get compressed what is not stored in a compressed form that they take"
        ),
    ] = ("jpeg-ls", "jpeg-2000", "htj2k", "jpeg-lossless", "jpeg-lossless-57", "rle")
