"""Processing: derived images made of images that are held, now or as workitems by whatever node. PS3.4 Annex CC."""

from pacs.services.process.computing import Computing
from pacs.services.process.deliver import Delivering
from pacs.services.process.desk import Desk
from pacs.services.process.fetching import Fetching
from pacs.services.process.order import Wanted, read
from pacs.services.process.perform import Performing
from pacs.services.process.piece import Piecework
from pacs.services.process.placing import Placing
from pacs.services.process.run import Asked, Processing, Tally
from pacs.services.process.settle import Settling
from pacs.services.process.words import Input, Reference, inputs_of
from pacs.services.process.workitem import workitem_of

__all__ = [
    "Asked",
    "Computing",
    "Delivering",
    "Desk",
    "Fetching",
    "Input",
    "Performing",
    "Piecework",
    "Placing",
    "Processing",
    "Reference",
    "Settling",
    "Tally",
    "Wanted",
    "inputs_of",
    "read",
    "workitem_of",
]
