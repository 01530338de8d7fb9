"""What one retrieve was, for accounting: deliveries, and reductions on the way, study by study."""

from collections.abc import Iterator

from pacs.core.caller import Caller
from pacs.core.identifiers import AETitle, new_object_id
from pacs.core.usage import Delivered, Processed, asked_by
from pacs.services.delivery.reduced import OPERATION
from pacs.services.retrieve.tally import Tally


def usage_of(caller: Caller, tally: Tally, receiver: AETitle) -> Iterator[Delivered | Processed]:
    """Give the facts; who asked for the images is who had them reduced."""
    delivery = new_object_id()  # Message IDs come again within an association
    for study, taken in tally.taken.items():
        yield Delivered(
            subscriber=caller.subscriber,
            delivery=delivery,
            study_instance_uid=study,
            receiver=receiver,
            asked_by=asked_by(caller),
            purpose=caller.purpose,
            instances=taken.instances,
            sent_bytes=taken.sent_bytes,
        )
        if taken.reduced:
            yield Processed(
                subscriber=caller.subscriber,
                session=new_object_id(),
                operation=OPERATION,
                study_instance_uid=study,
                asked_by=asked_by(caller),
                purpose=caller.purpose,
                images=taken.reduced,
                size_bytes=taken.reduced_bytes,
                duration_ms=taken.reduced_ms,
            )
