"""Every table and what becomes of it when it is lost. The columns are in the migrations.

*Index* tables are derived from the files and the journal: ``pacs reindex``
empties and rebuilds these and only these. *Records* exist nowhere else; only
a backup brings them back.
"""

import enum
from dataclasses import dataclass


class Kind(enum.Enum):
    """What becomes of a table when its rows are lost."""

    INDEX = "index"
    RECORD = "record"


@dataclass(frozen=True, slots=True)
class Table:
    """One table. ``about`` is its line in docs/storage-format.md."""

    name: str
    kind: Kind
    about: str


TABLES: tuple[Table, ...] = (
    Table("study_modality", Kind.INDEX, "which modalities a study holds, beside its date"),
    Table("instance", Kind.INDEX, "one kept file: a version of a SOP Instance, and its place"),
    Table("series", Kind.INDEX, "a series under one study, with the count of what it delivers"),
    Table("study", Kind.INDEX, "a study of one registrant under one patient"),
    Table("patient", Kind.INDEX, "a person as one registrant knows them, or one study without ID"),
    Table("conflict", Kind.INDEX, "a UID that arrived in contradicting company"),
    Table("journal_applied", Kind.INDEX, "journal entries whose effect the index holds"),
    Table("index_property", Kind.INDEX, "under which settings the index was made"),
    Table("form_change", Kind.RECORD, "which file of an object to keep while there are several"),
    Table("form_refusal", Kind.RECORD, "what is not held compressed, and why"),
    Table("peer", Kind.RECORD, "a device known by AE title, and whose it is"),
    Table("subscriber_destination", Kind.RECORD, "where else a subscriber may have images moved"),
    Table("subscriber_agreement", Kind.RECORD, "others' images that a subscriber may see"),
    Table("subscriber_purpose", Kind.RECORD, "what a purpose stated by a subscriber bounds"),
    Table("subscriber_user", Kind.RECORD, "a person or program of a subscriber"),
    Table("subscriber", Kind.RECORD, "a contract: its state, rights and dates"),
    Table("enrolment_code", Kind.RECORD, "digest of a code by which devices introduce themselves"),
    Table("contract_history", Kind.RECORD, "every change of a contract: when, whose, by whom, why"),
    Table("route", Kind.RECORD, "a rule: which arrivals go where, and how"),
    Table(
        "profile", Kind.RECORD, "an operation under an AE title: what is sent there is processed"
    ),
    Table("profile_spared", Kind.RECORD, "a file that came once more: under which AE title"),
    Table("revision", Kind.RECORD, "grows with every change made while serving"),
    Table("usage_fact", Kind.RECORD, "who used what, once, written in the transaction of the fact"),
    Table("usage_closed", Kind.RECORD, "what was held at the end of a month that is over"),
    Table("job_log", Kind.RECORD, "what a job says of itself, its newest lines"),
    Table("job", Kind.RECORD, "work asked for in the transaction of its cause, and its lease"),
    Table("job_schedule", Kind.RECORD, "when each schedule fired last, on whatever node"),
    Table("job_queue", Kind.RECORD, "queues whose peer is away: held until when, and why"),
    Table("outbox", Kind.RECORD, "an event a peer has not confirmed yet, or never did"),
    Table("commitment", Kind.RECORD, "what a peer was asked to answer for, and its report"),
    Table("poll", Kind.RECORD, "a peer that is asked for what is new, and how that ended last"),
    Table("poll_study", Kind.RECORD, "a study of a polled peer as it was left"),
    Table("poll_instance", Kind.RECORD, "what came from a polled peer once, or did not come"),
    Table("outbox_call", Kind.RECORD, "when a peer that did not take our call is called again"),
    Table("workitem_watch", Kind.RECORD, "which AE is told of a workitem, and holds it by a lock"),
    Table("workitem_global", Kind.RECORD, "which AE is told of every new workitem, or of some"),
    Table("workitem", Kind.RECORD, "a Unified Procedure Step: its state, Data Set and performer"),
    Table(
        "process_result", Kind.RECORD, "what a piece of a workitem gave, and of what it was made"
    ),
    Table("forward_sent", Kind.RECORD, "what is known of an instance at a destination"),
)
"""In an order in which they can be emptied: children before parents."""
