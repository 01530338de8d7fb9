"""Who asked for something that is done later, as the jobs that do it remember it.

It carries no right: between asking and doing there may be days, and what it may do then is
for ``pacs.services.process.standing`` to say.
"""

from dataclasses import dataclass

from pacs.core.caller import Caller, SubscriberName, Visibility, admin
from pacs.core.identifiers import AETitle

_ADMIN = admin("").subscriber


@dataclass(frozen=True, slots=True, kw_only=True)
class Creator:
    """Who made a workitem, as its jobs remember it.

    ``purpose`` was in force then; ``purpose_by_default`` says that none was stated, so what is done
    later is judged under what the contract names then. A job of before says it without: as stated.
    """

    subscriber: str
    purpose: str = ""
    purpose_by_default: bool = False
    ae_title: str = ""
    user: str = ""
    association: str = ""

    @classmethod
    def of(cls, caller: Caller) -> "Creator":
        """Remember a caller."""
        return cls(
            subscriber=caller.subscriber,
            purpose=caller.purpose,
            purpose_by_default=caller.purpose_by_default,
            ae_title=caller.ae_title,
            user=caller.user,
            association=caller.association,
        )

    @property
    def is_admin(self) -> bool:
        """Tell whether it is the command line, which owns no images and pays for nothing."""
        return self.subscriber == _ADMIN

    def named(self) -> Caller:
        """The creator by name, without any right."""
        return Caller(
            subscriber=SubscriberName(self.subscriber),
            rights=frozenset(),
            visibility=Visibility(),
            purpose=self.purpose,
            purpose_by_default=self.purpose_by_default,
            ae_title=AETitle(self.ae_title),
            user=self.user,
            association=self.association,
        )


def is_admin(caller: Caller) -> bool:
    """Tell whether a caller is the command line."""
    return caller.subscriber == _ADMIN
