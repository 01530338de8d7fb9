"""Words every room shares: errors, identifiers, records and ports; no library, no number, no socket."""
