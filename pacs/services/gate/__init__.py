"""The gate: who may come in, as whom, and what they may do. The only place that decides it."""

from pacs.services.gate.asking import Admission, AskingGate
from pacs.services.gate.contract import ContractGate
from pacs.services.gate.loopback import LOCAL, LoopbackGate, is_loopback
from pacs.services.gate.terms import Terms, resolved

__all__ = [
    "LOCAL",
    "Admission",
    "AskingGate",
    "ContractGate",
    "LoopbackGate",
    "Terms",
    "is_loopback",
    "resolved",
]
