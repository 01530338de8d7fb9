"""A gate that asks extensions, too, about whom the gate behind it admits."""

from collections.abc import Callable

from pacs.core.caller import Caller, Candidate, Right
from pacs.core.errors import AdmissionRefused
from pacs.core.ports import Gate

Admission = Callable[[Caller], str | None]
"""Gives the reason for refusing a caller, or ``None``."""


class AskingGate:
    """A gate that asks others about whom it admits; their refusals are final."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._admissions: tuple[Admission, ...] = ()

    def add(self, admission: Admission) -> None:
        """Ask one more; while the archive is put together."""
        self._admissions = (*self._admissions, admission)

    def admit(self, candidate: Candidate) -> Caller:
        """Resolve who asks. Raises ``AdmissionRefused``."""
        caller = self._gate.admit(candidate)
        for admission in self._admissions:
            reason = admission(caller)
            if reason is not None:
                raise AdmissionRefused(reason)
        return caller

    def allow(self, caller: Caller, right: Right, purpose: str = "") -> Caller:
        """As the gate does. Raises ``NotAuthorized``."""
        return self._gate.allow(caller, right, purpose)

    def stands(self, caller: Caller) -> bool:
        """As the gate does."""
        return self._gate.stands(caller)
