"""Every place where we rely on pynetdicom, in one table; a unit test pins it. PS3.8 Section 9.

=============================  ==========================================  ============================
of pynetdicom                  used by                                     for
=============================  ==========================================  ============================
fsm: its two tables            upper_layer, which has its own actions      PS3.8 Table 9-10
pdu: A-ASSOCIATE-RQ, -AC, -RJ  upper_layer, acceptance, requestor          encoding and decoding
pdu_primitives                 acceptance, admission, requestor            what these PDUs say
presentation                   acceptance, requestor                       contexts in those PDUs
sop_class, service_class       negotiation, sop_classes                    names; what may be storage
loggers, and pydicom's         ``silence`` switches them off               they print identifiers
=============================  ==========================================  ============================

Not used: its threads, sockets, queues, events and DIMSE. P-DATA, A-RELEASE and
A-ABORT are read and written by ``pdu`` and ``upper_layer``, command sets by
``commands``. Refuses to do anything beyond switching the loggers off.
"""

import logging
from collections.abc import Mapping
from typing import Final

from pynetdicom import _config, fsm, pdu, pdu_primitives, presentation, sop_class

PYNETDICOM: Final = "3.0.4"
"""The version this was written against."""

RELIED_ON: Final[Mapping[object, tuple[str, ...]]] = {
    fsm: ("ACTIONS", "TRANSITION_TABLE"),
    pdu.A_ASSOCIATE_RQ: ("decode", "encode", "from_primitive", "to_primitive"),
    pdu.A_ASSOCIATE_AC: ("decode", "encode", "from_primitive", "to_primitive"),
    pdu.A_ASSOCIATE_RJ: ("decode", "to_primitive"),
    pdu_primitives.A_ASSOCIATE: (
        "application_context_name",
        "calling_ae_title",
        "called_ae_title",
        "user_information",
        "result",
        "result_source",
        "diagnostic",
        "presentation_context_definition_list",
        "presentation_context_definition_results_list",
    ),
    pdu_primitives.UserIdentityNegotiation: (
        "user_identity_type",
        "primary_field",
        "secondary_field",
    ),
    presentation.PresentationContext: (
        "context_id",
        "abstract_syntax",
        "transfer_syntax",
        "add_transfer_syntax",
    ),
    presentation: ("build_context",),
    sop_class: ("_STORAGE_CLASSES", "_NON_PATIENT_OBJECT_CLASSES", "uid_to_service_class"),
}
"""Names used, by what has them."""


def silence() -> None:
    """Switch the libraries' own logging off: it prints identifiers, AE titles and values."""
    _config.LOG_HANDLER_LEVEL = "none"
    for library in ("pynetdicom", "pydicom"):
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)
