"""Parameters of operations as they are typed: ``--set NAME=VALUE``."""

from collections.abc import Mapping

import click


def parameters_of(settings: tuple[str, ...]) -> Mapping[str, str]:
    """Read them; each is written once. Raises ``click.UsageError``."""
    parameters: dict[str, str] = {}
    for one in settings:
        name, equals, value = one.partition("=")
        if not equals or name in parameters:
            raise click.UsageError(f"--set {one!r}: write each parameter once, as NAME=VALUE")
        parameters[name] = value
    return parameters
