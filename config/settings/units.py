"""Words that tables of settings are made of: units with their bounds, and the table itself."""

from typing import Annotated

from msgspec import Meta, Struct

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Bytes = Annotated[int, Meta(ge=0, le=1 << 50)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
AETitleText = Annotated[str, Meta(min_length=1, max_length=16, pattern=r"^[\x20-\x5b\x5d-\x7e]*$")]


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One table of pacs.toml."""
