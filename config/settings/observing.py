"""What is seen of a running archive."""

from typing import Annotated, Literal

from msgspec import Meta

from config.settings.units import Count, Port, Seconds, Section


class Metrics(Section, frozen=True, kw_only=True):
    """Depth and age of queues, for a collector. They name AE titles and no patients."""

    host: Annotated[
        str, Meta(description="Address on which the server answers GET /metrics, to anybody")
    ] = "127.0.0.1"
    port: Annotated[Port, Meta(description="Port on which it does; 0 for none")] = 0


class Logging(Section, frozen=True, kw_only=True):
    """What the log says. It never holds patient data."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least severity logged")
    ] = "info"
    format: Annotated[
        Literal["text", "json"], Meta(description="Form of the lines on standard error")
    ] = "text"


class Audit(Section, frozen=True, kw_only=True):
    """The audit trail under home/audit, and who else gets it. It never holds patient data."""

    sync_s: Annotated[
        Seconds,
        Meta(description="Most that the trail on disk is behind; fsynced in the background"),
    ] = 5.0
    keep_days: Annotated[
        int,
        Meta(ge=0, le=36_500, description="Days after which whole files are removed; 0 for never"),
    ] = 0
    collector_host: Annotated[
        str, Meta(description="Syslog collector (RFC 5425, over TLS) that gets it; empty for none")
    ] = ""
    collector_port: Annotated[Port, Meta(description="Its port")] = 6514
    collector_ca: Annotated[
        str,
        Meta(description="PEM file of who signed its certificate; empty for the system's"),
    ] = ""
    certificate: Annotated[
        str, Meta(description="PEM file of the certificate shown to it; empty for none")
    ] = ""
    private_key: Annotated[
        str, Meta(description="PEM file of its key; empty where the certificate's file holds it")
    ] = ""
    source_id: Annotated[
        str, Meta(description="AuditSourceID of the messages; empty for the AE title")
    ] = ""
    site_id: Annotated[str, Meta(description="Their AuditEnterpriseSiteID; empty for none")] = ""
    timeout_s: Annotated[
        Seconds, Meta(description="Longest that the collector may take to connect or to take more")
    ] = 10.0
    confirm_s: Annotated[
        Seconds,
        Meta(
            description="How long the connection must last after a message for it to count as taken"
        ),
    ] = 5.0
    retry_first_s: Annotated[
        Seconds, Meta(description="Wait after the first failure; doubled after each further one")
    ] = 1.0
    retry_max_s: Annotated[Seconds, Meta(description="Longest wait between two attempts")] = 300.0
    fold_quiet_s: Annotated[
        Seconds,
        Meta(description="C-STOREs of a study are one message once no more came for so long"),
    ] = 5.0
    fold_max_s: Annotated[
        Seconds, Meta(description="Longest that such a message waits for more of them")
    ] = 60.0
    most_unconfirmed: Annotated[
        Count, Meta(description="Most messages sent and not yet counted as taken")
    ] = 1_000
