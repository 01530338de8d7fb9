"""What is seen of a running archive."""

from typing import Annotated, Literal

from msgspec import Meta

from config.settings.units import Port, Section


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
