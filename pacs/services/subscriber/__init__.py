"""Subscribers: contracts made, changed and ended; users, agreements, purposes; devices that enrol themselves.

``contracts`` is the life of one, ``terms`` what it says, ``enrolment`` how a
device introduces itself, ``exchange`` the file they travel in. What a contract
means for an association or a request is decided by the gate, not here.
"""

from pacs.services.subscriber.contracts import Contracts, Shown
from pacs.services.subscriber.enrolment import Enrolment
from pacs.services.subscriber.exchange import Exchange
from pacs.services.subscriber.terms import Terms

__all__ = ["Contracts", "Enrolment", "Exchange", "Shown", "Terms"]
