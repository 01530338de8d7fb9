"""The generated parts of the documents: made from code, checked in, and stale never.

``python -m docs.generate`` writes them; ``--check`` fails when one is stale. A
part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``; what is
around it is written by hand.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import click

from config.load import variable
from config.template import describe
from pacs.app.conformance import statement
from pacs.cli import exits
from pacs.cli.main import COMMANDS, pacs
from pacs.core.usage import KINDS
from storage.database.tables import TABLES

REPOSITORY = Path(__file__).resolve().parent.parent
ROOMS = ("pacs", "scp", "scu", "storage", "processing", "config")


def rooms() -> str:
    """Map each package to the first line of its docstring."""
    lines = ["| room | owns |", "|---|---|"]
    for name, path in packages():
        lines.append(f"| `{name}` | {first_line(path / '__init__.py')} |")
    return "\n".join(lines)


def packages() -> Iterator[tuple[str, Path]]:
    """Yield every package that ships, by import name, parents first."""
    for room in ROOMS:
        for found in sorted((REPOSITORY / room).rglob("__init__.py")):
            folder = found.parent
            yield ".".join(folder.relative_to(REPOSITORY).parts), folder


def first_line(module: Path) -> str:
    """Give the first line of a module's docstring, empty when it has none."""
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def settings() -> str:
    """Tabulate every setting: what it is for, what it accepts, its default, its variable."""
    lines = ["| setting | purpose | accepts | default |", "|---|---|---|---|"]
    for one in describe():
        cells = (one.name, one.description, one.accepts, one.default)
        name, purpose, accepts, default = (cell.replace("|", "\\|") for cell in cells)
        lines.append(f"| `{name}` | {purpose} | {accepts} | `{default}` |")
    lines.append("")
    lines.append(f"The variable of `dicom.port` is `{variable('dicom', 'port')}`; so for all.")
    return "\n".join(lines)


def commands() -> str:
    """Tabulate every command with its arguments and options, one heading per top-level command."""
    context = click.Context(pacs, info_name="pacs")
    blocks = []
    for name, entry in COMMANDS.items():
        command = pacs.get_command(context, name)
        if command is None:
            raise LookupError(name)
        child = click.Context(command, info_name=name, parent=context)
        blocks.append(f"### `pacs {name}`\n\n{entry.summary}.\n\n" + "\n".join(_usage(child)))
    return "\n\n".join(blocks)


def _usage(context: click.Context) -> Iterator[str]:
    """Describe one command: its usage and options, then its subcommands likewise."""
    command = context.command
    pieces = " ".join(command.collect_usage_pieces(context))
    text = " ".join((command.help or "").partition("\f")[0].split())
    yield f"- `{_path(context)} {pieces}`: {text}"
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record and record[1] and "--help" not in record[0]:
            yield f"  - `{record[0]}`: {' '.join(record[1].split())}"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from _usage(click.Context(below, info_name=name, parent=context))


def _path(context: click.Context) -> str:
    """Name a command as it is typed, without the options and arguments of its groups."""
    parts = [context.info_name or ""]
    while context.parent is not None:
        context = context.parent
        parts.insert(0, context.info_name or "")
    return " ".join(parts)


def exit_codes() -> str:
    """Tabulate the exit codes."""
    lines = ["| code | meaning |", "|---|---|"]
    lines.extend(f"| {code} | {meaning} |" for code, meaning in exits.MEANINGS.items())
    return "\n".join(lines)


def tables() -> str:
    """Tabulate the database's tables: what each holds and what becomes of it when it is lost."""
    lines = ["| table | kind | holds |", "|---|---|---|"]
    lines.extend(f"| `{one.name}` | {one.kind.value} | {one.about} |" for one in TABLES)
    return "\n".join(lines)


def usage_kinds() -> str:
    """Tabulate the kinds of usage: what is counted of each, and what makes a fact count once."""
    lines = ["| kind | counts | a fact is | once per |", "|---|---|---|---|"]
    lines.extend(
        f"| `{kind.value}` | {one.units} | {one.about} | {one.once_per} |"
        for kind, one in KINDS.items()
    )
    return "\n".join(lines)


def conformance() -> str:
    """Give the conformance statement of what ships, without plug-ins of this machine."""
    return statement(()).rstrip("\n")


PARTS: Mapping[str, Callable[[], str]] = {
    "rooms": rooms,
    "settings": settings,
    "commands": commands,
    "exit-codes": exit_codes,
    "tables": tables,
    "usage-kinds": usage_kinds,
    "conformance": conformance,
}
DOCUMENTS: tuple[str, ...] = (
    "docs/architecture.md",
    "docs/conformance.md",
    "docs/operations.md",
    "docs/services/usage.md",
    "docs/storage-format.md",
)


def rendered(document: str) -> str:
    """Give a document's text with its generated parts made anew."""

    def part(match: re.Match[str]) -> str:
        return f"{match[1]}\n{PARTS[match[2]]()}\n{match[3]}"

    text = (REPOSITORY / document).read_text(encoding="utf-8")
    pattern = r"(<!-- generated: ([a-z-]+) -->)\n.*?(<!-- end -->)"
    return re.sub(pattern, part, text, flags=re.DOTALL)


def stale() -> list[str]:
    """Name the documents whose generated parts differ from the code."""
    return [
        one for one in DOCUMENTS if rendered(one) != (REPOSITORY / one).read_text(encoding="utf-8")
    ]


def main(arguments: list[str]) -> int:
    """Write the generated parts, or with ``--check`` say which are stale."""
    if arguments == ["--check"]:
        for one in stale():
            print(f"{one} is stale: run make docs")
        return 1 if stale() else 0
    for one in DOCUMENTS:
        (REPOSITORY / one).write_text(rendered(one), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
