"""How peers prove who they are and what is hidden on the way."""

from typing import Annotated, Literal

from msgspec import Meta

from config.settings.units import Port, Section


class Tls(Section, frozen=True, kw_only=True):
    """TLS, for peers that call us and for peers we call. Files are PEM, named from home."""

    port: Annotated[
        Port, Meta(description="Port on which associations come over TLS; 0 for none")
    ] = 0
    plain: Annotated[
        bool, Meta(description="Serve dicom.port without TLS as well, beside tls.port")
    ] = True
    certificate: Annotated[
        str, Meta(description="Our certificate, and those between it and its CA; empty shows none")
    ] = "tls/server.pem"
    key: Annotated[str, Meta(description="Its private key, not encrypted")] = "tls/server.key"
    trusted: Annotated[str, Meta(description="Certificates of the CAs whose peers we trust")] = (
        "tls/ca.pem"
    )
    revoked: Annotated[
        tuple[str, ...],
        Meta(description="CRLs; with any, there must be one of every CA in a peer's chain"),
    ] = ()
    client_certificates: Annotated[
        Literal["required", "optional", "none"],
        Meta(description="Whether peers that call us must, may or need not show a certificate"),
    ] = "required"
    minimum_version: Annotated[
        Literal["1.2", "1.3"],
        Meta(description="Oldest TLS version spoken; the profile asks for 1.2"),
    ] = "1.2"
    warn_days: Annotated[
        Annotated[int, Meta(ge=0, le=3_650)],
        Meta(description="The log warns when a certificate or CRL named here ends in fewer days"),
    ] = 30
