"""Who is let in: how identities are proven, how many may fail, and how soon a change holds."""

from typing import Annotated, Literal

from msgspec import Meta

from config.settings.units import Count, Seconds, Section


class Legitimacy(Section, frozen=True, kw_only=True):
    """How peers are told from each other. Who may do what is in the contracts, not here."""

    max_failures: Annotated[
        Count,
        Meta(
            description="User identities of one name that may fail from one address, or at one "
            "known device; then that name is locked there"
        ),
    ] = 10
    max_failures_per_name: Annotated[
        Count,
        Meta(
            description="Of one name from all addresses together; then it is locked everywhere "
            "but at known devices"
        ),
    ] = 50
    max_failures_per_address: Annotated[
        Count,
        Meta(
            description="Of all names from one address, or at one known device; then all are "
            "locked there, but for known devices at that address"
        ),
    ] = 50
    failure_window_s: Annotated[Seconds, Meta(description="Time within which they fail")] = 300.0
    lock_s: Annotated[
        Seconds, Meta(description="Time for which identities that are locked are refused unseen")
    ] = 900.0
    watch_s: Annotated[
        Annotated[float, Meta(ge=0.05, le=1.0)],
        Meta(description="How often each listener looks whether its associations may go on"),
    ] = 0.5
    resolve_timeout_s: Annotated[
        Seconds, Meta(description="Wait for the name server where a peer has a host name")
    ] = 2.0
    jwt_keys: Annotated[
        tuple[str, ...],
        Meta(
            description="Files, relative to home, of the public keys or certificates (PEM) that "
            "JSON Web Tokens are verified with; none takes none"
        ),
    ] = ()
    jwt_algorithms: Annotated[
        tuple[
            Literal[
                "RS256",
                "RS384",
                "RS512",
                "PS256",
                "PS384",
                "PS512",
                "ES256",
                "ES384",
                "ES512",
                "EdDSA",
            ],
            ...,
        ],
        Meta(description="Algorithms with which they may be signed"),
    ] = ("RS256", "PS256", "ES256", "EdDSA")
    jwt_issuer: Annotated[str, Meta(description="Issuer they must name; empty for any")] = ""
    jwt_audience: Annotated[
        str, Meta(description="Audience they must be for; empty where they name none")
    ] = ""
    jwt_user_claim: Annotated[
        str, Meta(min_length=1, description="Claim that holds the user's name")
    ] = "sub"
    jwt_leeway_s: Annotated[
        Annotated[float, Meta(ge=0, le=3_600)],
        Meta(description="Difference of clocks that is forgiven them"),
    ] = 30.0
