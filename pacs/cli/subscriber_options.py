"""What the options of ``pacs subscriber`` say, and how contracts are shown."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import click

from pacs.core.caller import Right
from pacs.core.contract import Agreement, Contract
from pacs.core.contract_form import form_of, peer_form
from pacs.core.contract_ports import Enrolled, EnrolmentCode
from pacs.services.subscriber import Shown
from pacs.services.subscriber.checks import GRANTABLE

BYTES_A_GB = 1_000_000_000
NONE = "none"
RIGHTS = click.Choice([one.value for one in Right if one in GRANTABLE])

name_argument = click.argument("name", metavar="NAME")
reason_option = click.option("--reason", required=True, help="Kept in its history.")


def allocation(text: str) -> int | None:
    """Read gigabytes, as bytes. Raises ``UsageError``.

    >>> allocation("1.5"), allocation("none")
    (1500000000, None)
    """
    if text == NONE:
        return None
    try:
        return round(float(text) * BYTES_A_GB)
    except (ValueError, OverflowError) as error:
        raise click.UsageError(f"{text!r} is no number of gigabytes") from error


def moment(text: str, zone: tzinfo, *, through: bool = False) -> datetime | None:
    """Read a day or a time in the archive's zone; ``through`` is the end of a day. Raises ``UsageError``."""
    if text == NONE:
        return None
    try:
        read = datetime.fromisoformat(text)
        if through and len(text) == len("2026-01-31"):
            read += timedelta(days=1)
        # Far enough from either end that no zone or row fails to hold it.
        if not 1_900 <= read.year < 9_999:
            raise ValueError(text)
    except (ValueError, OverflowError) as error:
        raise click.UsageError(f"{text!r} is no date as 2026-01-31 or 2026-01-31T07:30") from error
    return (read if read.tzinfo else read.replace(tzinfo=zone)).astimezone(UTC)


def rights_from(said: Iterable[str]) -> frozenset[Right]:
    """Read rights that ``RIGHTS`` has let pass."""
    return frozenset(map(Right, said))


def term_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the terms that ``add`` and ``change`` share."""
    for option in (
        click.option(
            "--until", metavar="DATE", help="When it ends; a day is its last. 'none' for no end."
        ),
        click.option("--from", "since", metavar="DATE", help="When it begins; 'none' for always."),
        click.option(
            "--allocation",
            metavar="GB",
            help="Storage paid for; 'none' for none.",
        ),
        click.option(
            "--issuer",
            metavar="TEXT",
            help="Issuer of Patient ID where a Data Set names none; its name unless given.",
        ),
    ):
        command = option(command)
    return command


# --- how it is shown ------------------------------------------------------------

LISTED = ["name", "state", "rights", "issuer_of_patient_id", "from", "until", "reason"]


def listed(one: Contract) -> Mapping[str, object]:
    """One line of the list, for a person."""
    return {
        **form_of(one),
        "from": one.begins_utc and f"{one.begins_utc:%Y-%m-%dT%H:%MZ}",
        "until": one.ends_utc and f"{one.ends_utc:%Y-%m-%dT%H:%MZ}",
    }


def shown_form(shown: Shown) -> Mapping[str, object]:
    """Everything of one contract, as JSON has it."""
    return {
        **form_of(shown.contract),
        "peers": [peer_form(one) for one in shown.peers],
        "users": [{"name": one.name, "proof": one.proof} for one in shown.users],
        "images_seen_by": list(shown.grantees),
        "held_files": shown.held_files,
        "held_bytes": shown.held_bytes,
        "enrolled": shown.enrolled and _enrolled_form(shown.enrolled),
    }


def _enrolled_form(enrolled: Enrolled) -> Mapping[str, object]:
    came = enrolled.proposal
    certificate = came.certificate
    return {
        "code": enrolled.code,
        "at_utc": came.at_utc.isoformat(),
        "ae_title": came.ae_title,
        "called_ae_title": came.called_ae_title,
        "address": came.address,
        "tls": came.tls,
        "certificate_fingerprint": certificate and certificate.fingerprint,
        "certificate_subject": certificate and certificate.subject,
        "certificate_not_after_utc": certificate and certificate.not_after_utc.isoformat(),
        "sop_classes": list(came.sop_classes),
    }


def shown_lines(form: Mapping[str, Any]) -> Iterable[Mapping[str, object]]:
    """The same for a person: a name and a value a line."""
    for key, value in form.items():
        if key == "enrolled":
            for detail, said in (value or {}).items():
                yield {"what": f"enrolled {detail}", "value": said}
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for one in value:
                yield {"what": key, "value": _said(key, one)}
        else:
            yield {"what": key, "value": value}


def _said(key: str, one: Mapping[str, Any]) -> str:
    if key == "agreements":
        return agreement_text(one)
    if key == "users":
        return f"{one['name']} ({one['proof']})"
    if key == "peers":
        place = f"{one['ae_title']} {one['host']}:{one['port']}{' TLS' if one['tls'] else ''}"
        networks = ", ".join(one["networks"]) or one["host"]
        bound = one["certificate_fingerprint"]
        return f"{place} from {networks}{f', certificate {bound}' if bound else ''}"
    bounds = [one["name"], " ".join(one["modalities"] or ["all"])]
    bounds += [f"at most {one['max_matrix']}"] if one["max_matrix"] else []
    bounds += [f"no {right}" for right in ("process", "report") if not one[right]]
    return ", ".join(bounds)


def agreement_text(form: Mapping[str, Any]) -> str:
    """Say whose images an agreement is about."""
    from pacs.services.subscriber.terms import agreement_said

    return agreement_said(Agreement(**form))


def code_row(one: EnrolmentCode) -> Mapping[str, object]:
    """One line of the list of codes."""
    return {
        "id": one.id,
        "rights": [right.value for right in Right if right in one.rights],
        "until": one.until_utc and one.until_utc.isoformat(),
        "uses_left": one.uses_left,
        "added": one.added_utc.isoformat(),
    }
