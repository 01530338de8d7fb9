"""Exit codes, a contract with scripts: what ended how, and the one line that says what to do.

Decides no outcome itself: an error of ``pacs.core.errors`` says what happened,
the tables here say what a shell gets.
"""

from collections.abc import Mapping

from pacs.core import errors

DONE = 0
FAILED = 1
USAGE = 2
DAMAGE = 3
REFUSED = 4
UNREACHABLE = 5

MEANINGS: Mapping[int, str] = {
    DONE: "done",
    FAILED: "failed",
    USAGE: "wrong usage or settings",
    DAMAGE: "damage found",
    REFUSED: "refused by the peer",
    UNREACHABLE: "peer unreachable",
}

CODES: Mapping[type[errors.PacsError], int] = {
    errors.SettingsInvalid: USAGE,
    errors.ProcessingUnknown: USAGE,
    errors.InstanceCorrupt: DAMAGE,
    errors.PeerRefused: REFUSED,
    errors.PeerUnreachable: UNREACHABLE,
}
"""Errors with a code of their own, the classes derived from them included; all others are 1."""

ADVICE: Mapping[type[errors.PacsError], str] = {
    errors.SettingsInvalid: "mend it, then try again; 'pacs config show' lists every setting",
    errors.NotInitialized: "run 'pacs init' first, or name the home with --home",
    errors.HomeInUse: "stop the other server, or name another home with --home",
    errors.AddressInUse: "stop what listens there, or choose another with --port",
    errors.DestinationUnknown: "add it with 'pacs peer add AE HOST PORT'",
    errors.PeerUnreachable: "check address, port and whether the peer is running",
    errors.PeerRefused: "check the AE titles and what the peer accepts",
    errors.CapacityExhausted: "free space on the store's volume",
    errors.InstanceCorrupt: "restore it from a backup; 'pacs verify' lists all damage",
    errors.ProcessingUnknown: "'pacs process operations' lists them with their parameters",
    errors.RecordsFailed: "check that the database of database.url answers",
}
"""What to do about it, where there is something to do."""


def code_of(error: errors.PacsError) -> int:
    """Give the exit code of an error.

    >>> code_of(errors.PeerUnreachable()), code_of(errors.EntryNotFound())
    (5, 1)
    """
    return next((CODES[kind] for kind in type(error).__mro__ if kind in CODES), FAILED)


def line_of(error: errors.PacsError) -> str:
    """Say on one line what happened and what to do.

    >>> line_of(errors.NotInitialized("No archive in ./pacs-home"))
    "No archive in ./pacs-home; run 'pacs init' first, or name the home with --home"
    """
    message = " ".join(str(error).split())
    advice = next((ADVICE[kind] for kind in type(error).__mro__ if kind in ADVICE), "")
    return f"{message}; {advice}" if advice else message
