"""Work that outlives its request: jobs, and what each kind of them may do."""

from typing import Annotated

from msgspec import Meta

from config.settings.units import Bytes, Count, Seconds, Section


class Jobs(Section, frozen=True, kw_only=True):
    """Work that outlives its request, and who does it."""

    workers: Annotated[
        Annotated[int, Meta(ge=0, le=256)],
        Meta(description="Worker processes, each running one job at a time"),
    ] = 1
    groups: Annotated[
        tuple[
            Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,15}$")],
            ...,
        ],
        Meta(
            description="Groups this node is of: work asked of a group is done by its nodes alone",
            max_length=64,
        ),
    ] = ()
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
    hold_first_s: Annotated[
        Annotated[float, Meta(ge=0.1, le=86_400)],
        Meta(
            description="A queue whose peer is away is left alone for so long, twice as long each time"
        ),
    ] = 5.0
    hold_max_s: Annotated[
        Annotated[float, Meta(ge=0.1, le=86_400)],
        Meta(
            description="Longest time for which a queue is left alone before its peer is tried again"
        ),
    ] = 300.0
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


class Arrival(Section, frozen=True, kw_only=True):
    """When what arrives is taken to be complete."""

    series_quiet_s: Annotated[
        Seconds, Meta(description="A series is complete when nothing of it has arrived for so long")
    ] = 30.0
    study_quiet_s: Annotated[
        Seconds, Meta(description="A study is complete when nothing of it has arrived for so long")
    ] = 120.0


class Forward(Section, frozen=True, kw_only=True):
    """Sending on what routes select."""

    window: Annotated[
        Annotated[int, Meta(ge=1, le=1_000)],
        Meta(description="Instances noted as begun, and as sent, in one transaction"),
    ] = 50
    slice_s: Annotated[
        Seconds, Meta(description="Time after which a long job lets the other queues go first")
    ] = 30.0
    max_instances: Annotated[
        Count, Meta(description="Instances of one study or series; a job for more of them fails")
    ] = 1_000_000
    max_attempts: Annotated[
        Count, Meta(description="Attempts at what a destination refuses before the job has failed")
    ] = 8
    retry_s: Annotated[
        Seconds, Meta(description="Wait before the second attempt; doubled at each further one")
    ] = 5.0
    max_retry_s: Annotated[Seconds, Meta(description="Longest wait between two attempts")] = 3_600.0
    keep_s: Annotated[
        Annotated[float, Meta(ge=0, le=315_360_000)],
        Meta(description="Time for which it is known what was sent where, and not sent again"),
    ] = 2_592_000.0
    purge_cron: Annotated[
        str, Meta(description="When records past forward.keep_s are forgotten; empty is never")
    ] = "37 3 * * *"


class Commitment(Section, frozen=True, kw_only=True):
    """Asking other archives to take over responsibility: Storage Commitment."""

    wait_on_association_s: Annotated[
        Annotated[float, Meta(ge=0, le=3_600)],
        Meta(description="Time a report is waited for on the association of its request"),
    ] = 5.0
    deadline_s: Annotated[
        Annotated[float, Meta(gt=0, le=31_536_000)],
        Meta(description="Time in which a peer must have reported; then the job has failed"),
    ] = 86_400.0
    max_references: Annotated[
        Annotated[int, Meta(ge=1, le=10_000)],
        Meta(
            description="Instances in one request, fewer where the bounds of [association] would not hold its report"
        ),
    ] = 2_000
    keep_s: Annotated[
        Annotated[float, Meta(ge=0, le=315_360_000)],
        Meta(description="Time past the deadline for which a report still finds its request"),
    ] = 604_800.0


class Poll(Section, frozen=True, kw_only=True):
    """Asking peers for what is new there."""

    max_studies: Annotated[
        Count, Meta(description="Studies taken from one answer of a peer; what is more is left")
    ] = 10_000
    max_study_instances: Annotated[
        Count, Meta(description="Instances of one study that are listed; what is more is left")
    ] = 100_000
    uids_per_request: Annotated[
        Annotated[int, Meta(ge=1, le=1_000)],
        Meta(description="Instances named in one C-MOVE or C-GET, where single ones are missing"),
    ] = 50
    max_attempts: Annotated[
        Annotated[int, Meta(ge=1, le=100)],
        Meta(description="Times an instance is asked for that does not come; then it is given up"),
    ] = 8
    retry_s: Annotated[
        Seconds,
        Meta(
            description="Wait before what failed twice is asked for again; doubled at each further time"
        ),
    ] = 600.0
    stall_s: Annotated[
        Seconds,
        Meta(description="Time in which a peer's counters must move while it retrieves for us"),
    ] = 600.0
    pause_s: Annotated[
        Annotated[float, Meta(ge=0, le=3_600)],
        Meta(description="Pause between two requests for instances, to spare the peer"),
    ] = 0.0
    remember_days: Annotated[
        Annotated[int, Meta(ge=1, le=36_500)],
        Meta(
            description="What came and was deleted here is not fetched again until a peer has not shown its study for so long"
        ),
    ] = 365


class Workitems(Section, frozen=True, kw_only=True):
    """The worklist: Unified Procedure Steps of whoever asks for work, does it or watches it."""

    max_bytes: Annotated[
        Annotated[int, Meta(ge=4_096, le=1 << 30)],
        Meta(description="Largest workitem, whatever was set in it"),
    ] = 4_194_304
    max_workitems: Annotated[Count, Meta(description="Workitems in all; more are refused")] = (
        100_000
    )
    max_workitems_per_subscriber: Annotated[
        Count, Meta(description="Workitems of one subscriber; more are refused")
    ] = 20_000
    max_watchers: Annotated[
        Annotated[int, Meta(ge=1, le=10_000)],
        Meta(description="AEs that watch one workitem, or everything of one subscriber"),
    ] = 50
    max_candidates: Annotated[
        Count,
        Meta(description="Workitems one query may look at; it is refused where there are more"),
    ] = 20_000
    max_answers: Annotated[
        Count, Meta(description="Workitems one query may find; it is refused where there are more")
    ] = 5_000
    worklist_label: Annotated[
        Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[ -\[\]-~]*$")],
        Meta(description="Worklist Label of workitems that came without one"),
    ] = "PACS"
    keep_s: Annotated[
        Annotated[float, Meta(ge=0, le=315_360_000)],
        Meta(
            description="Time an ended workitem is kept, and longer while a deletion lock holds it"
        ),
    ] = 604_800.0
    purge_cron: Annotated[
        str, Meta(description="When workitems past workitems.keep_s are removed; empty is never")
    ] = "*/5 * * * *"


class Process(Section, frozen=True, kw_only=True):
    """Making derived images."""

    timeout_s: Annotated[
        Seconds, Meta(description="Time one image, volume or set of images may take")
    ] = 600.0
    memory_bytes: Annotated[
        Annotated[int, Meta(ge=1 << 30, le=1 << 50)],
        Meta(description="Address space for one of them, what is mapped from files included"),
    ] = 8_589_934_592
    max_image_bytes: Annotated[Bytes, Meta(description="Largest instance that is processed")] = (
        2_147_483_648
    )
    max_instances: Annotated[
        Annotated[int, Meta(ge=1, le=100_000)],
        Meta(description="Instances one request may take"),
    ] = 5_000
    piece_images: Annotated[
        Annotated[int, Meta(ge=1, le=10_000)],
        Meta(description="Images of a workitem that one worker processes before others may go on"),
    ] = 16
    volume_parts: Annotated[
        Annotated[int, Meta(ge=1, le=64)],
        Meta(
            description="Pieces a volume's results are shared out to, where the operation allows it; each reads the volume"
        ),
    ] = 2
    reuse_s: Annotated[
        Annotated[float, Meta(ge=0, le=315_360_000)],
        Meta(
            description="Time for which results that are held still are given for the same request instead of new ones"
        ),
    ] = 2_592_000.0
    max_wait_s: Annotated[
        Annotated[float, Meta(ge=1, le=315_360_000)],
        Meta(description="Time a workitem may wait for its input to become ready"),
    ] = 2_592_000.0
    purge_cron: Annotated[
        str,
        Meta(description="When it is forgotten what was made longer ago; empty is never"),
    ] = "47 3 * * *"
    settle_cron: Annotated[
        str,
        Meta(
            description="When workitems are ended whose job was given up, or that waits though they are cancelled or have expired; empty is never"
        ),
    ] = "* * * * *"
