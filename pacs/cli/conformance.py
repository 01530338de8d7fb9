"""``pacs conformance``: the DICOM conformance statement of what is attached."""

import click


@click.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(["markdown"]),
    default="markdown",
    show_default=True,
    help="Form of the statement.",
)
def conformance(*, form: str) -> None:
    """Print the DICOM conformance statement, installed extensions included.

    It says what the defaults give and needs no archive.
    """
    from pacs.app.conformance import statement

    forms = {"markdown": statement}
    click.echo(forms[form](), nl=False)
