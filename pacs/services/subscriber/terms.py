"""What a contract says beside rights and dates: its users, agreements, purposes and destinations."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pacs.core.caller import Caller
from pacs.core.contract import NAME_ONLY, Agreement, Contract, Purpose, User
from pacs.core.errors import EntryConflicts, EntryNotFound
from pacs.core.identifiers import AETitle
from pacs.services.passcode import hashed
from pacs.services.subscriber.checks import check_passcode, check_user_name
from pacs.services.subscriber.contracts import AS_IT_IS, Unchanged
from pacs.services.subscriber.desk import Desk, found


@dataclass(frozen=True, slots=True, kw_only=True)
class PurposeEdits:
    """What is said of a purpose; the fields are those of ``Purpose``.

    What is not said stays as it is: no bound is lifted by silence. ``None`` lifts one.
    """

    modalities: frozenset[str] | Unchanged | None = AS_IT_IS
    max_matrix: int | Unchanged | None = AS_IT_IS
    process: bool | Unchanged = AS_IT_IS
    report: bool | Unchanged = AS_IT_IS

    def of(self, purpose: Purpose) -> Purpose:
        """The purpose with what is said."""
        values = {name: getattr(self, name) for name in self.__slots__}
        said = {name: value for name, value in values.items() if value is not AS_IT_IS}
        return replace(purpose, **said)


class Terms:
    """What an admin does with them; each change is in the history and on record, no passcode ever."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    # --- users ----------------------------------------------------------------

    def users(self, caller: Caller, name: str) -> Sequence[User]:
        """The users of one subscriber by name. Raises ``EntryNotFound``."""
        found(self._desk.rows.find(name), name)
        return self._desk.rows.users(name)

    def add_user(
        self, caller: Caller, name: str, user: str, passcode: bytes | None, *, named: bool = False
    ) -> None:
        """Add a user, or give the one of that name another passcode.

        Without passcode it proves itself by tokens only, or, ``named``, by nothing: then its name
        counts beside a known device. Raises ``EntryNotFound``, ``EntryConflicts``.
        """
        check_user_name(user)
        if passcode is not None:
            check_passcode(passcode)
            kept, proof = hashed(passcode), "passcode"  # takes its time, so before the change
        else:
            kept, proof = (NAME_ONLY, "name only") if named else ("", "token only")
        with self._desk.change(caller, event="user-changed") as change:
            subscriber = change.in_force(name).subscriber
            known = next((one for one in change.unit.users() if one.name == user), None)
            if known is not None and known.subscriber != subscriber:
                raise EntryConflicts(f"a user of another subscriber is named {user}")
            if known is None and len(change.unit.users(name)) >= self._desk.bounds.max_users:
                raise EntryConflicts(
                    f"{name} has {self._desk.bounds.max_users} users already (subscriber.max_users)"
                )
            change.unit.put_user(User(name=user, subscriber=subscriber, passcode=kept))
            change.note(name, f"user {user} {'changed' if known else 'added'}, {proof}")

    def remove_user(self, caller: Caller, name: str, user: str) -> None:
        """Remove a user. Raises ``EntryNotFound``."""
        with self._desk.change(caller, event="user-changed") as change:
            change.get(name)
            if user not in {one.name for one in change.unit.users(name)}:
                raise EntryNotFound(f"{name} has no user {user}")
            change.unit.remove_user(user)
            change.note(name, f"user {user} removed")

    # --- agreements -------------------------------------------------------------

    def agree(self, caller: Caller, name: str, agreement: Agreement) -> Contract:
        """Let a subscriber see others' images. Raises ``EntryNotFound``, ``EntryConflicts``."""

        def edited(one: Contract) -> Contract:
            if agreement in one.agreements:
                raise EntryConflicts(f"{name} may see {agreement_said(agreement)} already")
            return replace(one, agreements=(*one.agreements, agreement))

        return self._desk.edit(caller, name, f"may see {agreement_said(agreement)}", edited)

    def disagree(self, caller: Caller, name: str, agreement: Agreement) -> Contract:
        """Take that back. Raises ``EntryNotFound``."""

        def edited(one: Contract) -> Contract:
            if agreement not in one.agreements:
                raise EntryNotFound(f"no agreement lets {name} see {agreement_said(agreement)}")
            left = tuple(other for other in one.agreements if other != agreement)
            return replace(one, agreements=left)

        return self._desk.edit(
            caller, name, f"may no longer see {agreement_said(agreement)}", edited
        )

    # --- purposes and destinations --------------------------------------------------

    def add_purpose(
        self, caller: Caller, name: str, purpose: str, edits: PurposeEdits, *, default: bool
    ) -> Contract:
        """Add a purpose, or change what is said of the one of that name.

        Raises ``EntryNotFound``, ``EntryConflicts``.
        """
        with self._desk.change(caller, event="contract-changed") as change:
            one = change.in_force(name)
            known = {other.name: other for other in one.purposes}
            made = edits.of(known.pop(purpose, Purpose(name=purpose)))
            after = replace(
                one,
                purposes=(*known.values(), made),
                purpose=purpose if default else one.purpose,
            )
            change.put(after)
            change.note(name, purpose_said(made, default=after.purpose == purpose))
        return after

    def remove_purpose(self, caller: Caller, name: str, purpose: str) -> Contract:
        """Remove a purpose nothing else names. Raises ``EntryNotFound``, ``EntryConflicts``."""

        def edited(one: Contract) -> Contract:
            if purpose not in {other.name for other in one.purposes}:
                raise EntryNotFound(f"{name} has no purpose {purpose}")
            if purpose == one.purpose:
                # Without it nothing would bound what it bounds now: that is for the admin to say.
                raise EntryConflicts(
                    f"requests of {name} have the purpose {purpose} unless they state another: "
                    "change that first"
                )
            if purpose in {other.purpose for other in one.agreements}:
                raise EntryConflicts(f"an agreement of {name} holds under {purpose}: end it first")
            left = tuple(other for other in one.purposes if other.name != purpose)
            return replace(one, purposes=left)

        return self._desk.edit(caller, name, f"purpose {purpose} removed", edited)

    def add_destination(self, caller: Caller, name: str, ae_title: str) -> Contract:
        """Let a subscriber have images moved to an AE. Raises ``EntryNotFound``, ``EntryConflicts``."""
        title = AETitle(ae_title.strip())
        return self._desk.edit(
            caller, name, f"may have images moved to {title}",
            lambda one: replace(one, destinations=one.destinations | {title}),
        )  # fmt: skip

    def remove_destination(self, caller: Caller, name: str, ae_title: str) -> Contract:
        """Take that back. Raises ``EntryNotFound``."""
        title = AETitle(ae_title.strip())

        def edited(one: Contract) -> Contract:
            if title not in one.destinations:
                raise EntryNotFound(f"{title} is no destination of {name}")
            return replace(one, destinations=one.destinations - {title})

        return self._desk.edit(caller, name, f"may no longer have images moved to {title}", edited)


def agreement_said(agreement: Agreement) -> str:
    """Say whose images an agreement is about.

    >>> agreement_said(Agreement(owner=None, purpose="teaching"))
    'the whole archive for teaching'
    """
    whose = "the whole archive"
    if agreement.owner is not None:
        whose = f"the images of {agreement.owner}"
    if agreement.study_instance_uid is not None:
        whose = f"study {agreement.study_instance_uid} of {agreement.owner}"
    return whose + (f" for {agreement.purpose}" if agreement.purpose else "")


def purpose_said(purpose: Purpose, *, default: bool) -> str:
    """Say for the history what a purpose bounds."""
    said = [f"purpose {purpose.name}"]
    if purpose.modalities is not None:
        said.append(f"of {' '.join(sorted(purpose.modalities))}")
    if purpose.max_matrix is not None:
        said.append(f"up to {purpose.max_matrix} rows and columns")
    if not purpose.process:
        said.append("no processing")
    if not purpose.report:
        said.append("no reports")
    if default:
        said.append("unless another is stated")
    return ", ".join(said)
