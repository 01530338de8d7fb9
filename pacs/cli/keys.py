"""Keys on the command line: ``Keyword=value``, as the query commands take them."""

from collections.abc import Mapping, Sequence

import click

key_arguments = click.argument("keys", nargs=-1, metavar="[KEYWORD=VALUE]...")
"""The arguments of every command that asks a question."""


def parse_keys(arguments: Sequence[str]) -> Mapping[str, str]:
    """Read ``Keyword=value`` arguments; a keyword alone asks for its value to be returned.

    >>> parse_keys(["PatientName=DOE*", "StudyDate"])
    {'PatientName': 'DOE*', 'StudyDate': ''}
    """
    keys: dict[str, str] = {}
    for argument in arguments:
        keyword, _, value = argument.partition("=")
        if not keyword.isalnum() or not keyword[0].isupper():
            raise click.UsageError(f"{argument!r} is not KEYWORD=VALUE with a DICOM keyword")
        keys[keyword] = value
    return keys
