"""``pacs``: the command group, found lazily, and the one place where an error becomes an exit code.

A command is one module and one line in ``COMMANDS``; it is imported when it is
asked for, so that ``pacs --help`` answers at once. No command catches an error
to print it: that happens here.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import click

from pacs.cli import exits
from pacs.cli.home import Home
from pacs.core.errors import PacsError

DEFAULT_HOME = "./pacs-home"
EXTENSIONS = "pacs.extensions"
"""The entry-point group, looked at before anything of the archive is imported."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command is, and the line ``pacs --help`` says about it."""

    target: str
    summary: str


COMMANDS: Mapping[str, Entry] = {
    "init": Entry("pacs.cli.init:init", "Create a home: settings, store and database"),
    "serve": Entry("pacs.cli.serve:serve", "Run the archive until it is told to stop"),
    "worker": Entry("pacs.cli.worker:worker", "Run jobs, beside a server or on another machine"),
    "config": Entry("pacs.cli.config:config", "Show the settings and where each comes from"),
    "peer": Entry("pacs.cli.peer:peer", "Name devices: whose they are, and where they are"),
    "subscriber": Entry(
        "pacs.cli.subscriber:subscriber", "Say who may reach the archive, and what each may do"
    ),
    "tls": Entry("pacs.cli.tls:tls", "Make certificates to try TLS with; see what is configured"),
    "echo": Entry("pacs.cli.echo:echo", "Ask a peer whether it answers (C-ECHO)"),
    "send": Entry("pacs.cli.send:send", "Send files to a peer (C-STORE)"),
    "find": Entry("pacs.cli.find:find", "Query a peer (C-FIND)"),
    "get": Entry("pacs.cli.get:get", "Retrieve from a peer to files (C-GET)"),
    "move": Entry("pacs.cli.move:move", "Have a peer send to another AE (C-MOVE)"),
    "ls": Entry("pacs.cli.ls:ls", "List what the archive holds"),
    "stats": Entry("pacs.cli.stats:stats", "Count what the archive holds"),
    "verify": Entry("pacs.cli.verify:verify", "Compare files, digests and index"),
    "reindex": Entry("pacs.cli.reindex:reindex", "Rebuild the index from the files"),
    "compress": Entry(
        "pacs.cli.compress:compress", "Hold images losslessly compressed, or as received"
    ),
    "process": Entry("pacs.cli.process:process", "Make derived images of what is held"),
    "workitem": Entry(
        "pacs.cli.workitem:workitem", "See who is to do what: Unified Procedure Steps"
    ),
    "delete": Entry("pacs.cli.delete:delete", "Delete with a reason, or undo a deletion"),
    "conflict": Entry("pacs.cli.conflict:conflict", "List and resolve identity conflicts"),
    "forward": Entry("pacs.cli.forward:forward", "Have a study sent to a peer, by a job"),
    "job": Entry("pacs.cli.job:job", "List jobs and dead letters; retry, cancel, purge"),
    "metrics": Entry("pacs.cli.metrics:metrics", "Print depth and age of queues for a collector"),
    "usage": Entry("pacs.cli.usage:usage", "Add up what subscribers used in a month"),
    "route": Entry("pacs.cli.route:route", "Say which arrivals go where, and try it on a file"),
    "poll": Entry("pacs.cli.poll:poll", "Ask peers on a schedule for what is new, and fetch it"),
    "outbox": Entry("pacs.cli.outbox:outbox", "See events that peers have not confirmed yet"),
    "audit": Entry("pacs.cli.audit:audit", "Verify, list and export the audit trail"),
    "conformance": Entry(
        "pacs.cli.conformance:conformance", "Print the DICOM conformance statement"
    ),
}


class Commands(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order of the table, then those of extensions."""
        return [*COMMANDS, *_attached()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        known = COMMANDS.get(cmd_name)
        target = known.target if known else _attached().get(cmd_name)
        if target is None:
            return None
        module, _, attribute = target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the summaries from the table, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])
        if attached := _attached():
            with formatter.section("Commands of extensions"):
                formatter.write_dl([(name, "") for name in attached])


def _attached() -> dict[str, str]:
    """Map the commands that installed extensions bring to where they are."""
    if not entry_points(group=EXTENSIONS):
        return {}
    from pacs.app.extension import installed

    return {
        name: target
        for extension in installed()
        for name, target in extension.commands.items()
        if name not in COMMANDS
    }


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--home",
    envvar="PACS_HOME",
    default=DEFAULT_HOME,
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where all state lives; $PACS_HOME when not given.",
)
@click.version_option(package_name="pacs-archive", prog_name="pacs")
@click.pass_context
def pacs(ctx: click.Context, home: Path) -> None:
    """A medical image archive that speaks DICOM on every side."""
    ctx.obj = Home(path=home)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code; every error becomes one line on standard error."""
    try:
        result = pacs.main(
            args=None if arguments is None else list(arguments),
            prog_name="pacs",
            standalone_mode=False,
        )
    except click.ClickException as error:
        error.show()
        return exits.USAGE if isinstance(error, click.UsageError) else exits.FAILED
    except (click.Abort, KeyboardInterrupt):
        return _ended("interrupted", exits.FAILED)
    except PacsError as error:
        return _ended(exits.line_of(error), exits.code_of(error))
    except BrokenPipeError:
        # The reader of our output has gone; closing it again at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.FAILED
    except Exception as error:  # noqa: BLE001 - the outermost frame: the shell gets a line, not a trace
        return _ended(f"unexpected {type(error).__name__}: {_one_line(error)}", exits.FAILED)
    return result if isinstance(result, int) else exits.DONE


def _ended(message: str, code: int) -> int:
    if os.environ.get("PACS_LOGGING__LEVEL") == "debug" and sys.exc_info()[0] is not None:
        traceback.print_exc()
    click.echo(f"pacs: {message}", err=True)
    return code


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or "no message"


if __name__ == "__main__":
    main()
