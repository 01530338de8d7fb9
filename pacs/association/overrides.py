"""Every place where we reach into pynetdicom, in one table; a unit test pins it. PS3.8 Section 9.

===========================  =====================================  ==================================
of pynetdicom                what we put in its place               why
===========================  =====================================  ==================================
AE.start_server, its server  server.AssociationServer               limits before threads, drain
AssociationSocket            upper_layer.Transport                  poll instead of select, no fd leak
DULServiceProvider           upper_layer.UpperLayer                 ``run_reactor``, ``_send``,
                                                                    ``_process_recv_primitive``,
                                                                    ``_is_transport_event``,
                                                                    ``_read_pdu_data``: length caps,
                                                                    fairness, no thread dies silently
DIMSEServiceProvider         intake.Intake                          ``receive_primitive``: streaming
Association                  acceptor.ServedAssociation             ``run_reactor``, ``abort``,
                                                                    ``_bind_defaults``: admission,
                                                                    negotiation, serving
ACSE                         kept: ``send_accept send_reject        it only builds primitives
                             send_release send_abort``
StateMachine                 kept: PS3.8 Table 9-10
AE.associate                 requestor: ``_create_socket``          the socket of a failed attempt
                                                                    is closed
Association, as requestor    ``_reactor_checkpoint`` held           nobody else reads its messages
loggers, and pydicom's       switched off                           they print identifiers
===========================  =====================================  ==================================

Refuses to do anything beyond switching the loggers off.
"""

import logging
from collections.abc import Mapping
from typing import Final

from pynetdicom import (
    _config,
    acse,
    ae,
    association,
    dimse,
    dul,
    fsm,
    transport,
)

PYNETDICOM: Final = "3.0.4"
"""The version these overrides were written against."""

RELIED_ON: Final[Mapping[type, tuple[str, ...]]] = {
    dul.DULServiceProvider: (
        "run_reactor",
        "_send",
        "_process_recv_primitive",
        "_is_transport_event",
        "_read_pdu_data",
        "_decode_pdu",
        "peek_next_pdu",
        "idle_timer_expired",
        "send_pdu",
        "kill_dul",
    ),
    dimse.DIMSEServiceProvider: ("receive_primitive", "get_msg", "maximum_pdu_size"),
    association.Association: (
        "run_reactor",
        "abort",
        "_bind_defaults",
        "set_socket",
        "accepted_contexts",
        "rejected_contexts",
    ),
    acse.ACSE: ("send_accept", "send_reject", "send_release", "send_abort"),
    transport.AssociationSocket: ("ready", "send", "close", "_shutdown_socket"),
    fsm.StateMachine: ("do_action", "transition"),
    ae.ApplicationEntity: ("_create_socket", "associate"),
}
"""Methods overridden or called, by class."""

RELIED_ON_INSTANCE: Final[Mapping[type, tuple[str, ...]]] = {
    dul.DULServiceProvider: (
        "socket",
        "event_queue",
        "to_provider_queue",
        "to_user_queue",
        "_recv_pdu",
        "_idle_timer",
        "artim_timer",
        "state_machine",
        "_kill_thread",
    ),
    dimse.DIMSEServiceProvider: ("msg_queue", "_assoc"),
    association.Association: (
        "_accepted_cx",
        "_rejected_cx",
        "_dul_ready",
        "is_established",
        "is_aborted",
        "is_released",
        "_reactor_checkpoint",
        "dimse",
    ),
}
"""Attributes of instances, by class."""


def silence() -> None:
    """Switch the libraries' own logging off: it prints identifiers, AE titles and values."""
    _config.LOG_HANDLER_LEVEL = "none"
    for library in ("pynetdicom", "pydicom"):
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)
