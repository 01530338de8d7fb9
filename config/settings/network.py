"""How peers reach us and how we treat them: bounds of associations and of what we say unasked."""

from typing import Annotated, Literal

from msgspec import Meta

from config.settings.units import AETitleText, Count, Port, Seconds, Section


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


class Identity(Section, frozen=True, kw_only=True):
    """Whose patients they are."""

    issuer_of_patient_id: Annotated[
        str,
        Meta(
            max_length=64,
            description="Issuer assumed for the subscriber 'local' where a Data Set names none",
        ),
    ] = "local"


class Subscriber(Section, frozen=True, kw_only=True):
    """How much may be agreed: bounds of contracts."""

    max_subscribers: Annotated[
        Count, Meta(description="Contracts in all; every listener holds them in memory")
    ] = 5_000
    max_users: Annotated[Count, Meta(description="Users of one subscriber")] = 200
    max_agreements: Annotated[
        Count, Meta(description="Agreements of one subscriber about others' images")
    ] = 1_000
    max_codes: Annotated[Count, Meta(description="Enrolment codes at once")] = 100
    max_pending: Annotated[
        Count, Meta(description="Devices that enrolled themselves and wait to be accepted, in all")
    ] = 200
    max_pending_per_code: Annotated[
        Count, Meta(description="Devices that enrolled themselves by one code and wait")
    ] = 50


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
