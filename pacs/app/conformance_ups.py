"""The sentences of the conformance statement about the worklist. PS3.4 Section CC.4.2."""

from typing import Final

UPS: Final = """
The archive is the SCP of all five SOP Classes; workitems are made by peers and by the archive itself, and performed by
peers and by the archive. What is asked must be provided by the SOP Class that was negotiated (PS3.4 Tables CC.2-1 to
CC.2-5), else 0x0211, an action 0x0123. A subscriber's workitems are its own: another's do not exist for it (0xC307) or,
where an agreement shows it the whole archive, can be seen and watched only: an N-SET or N-ACTION that would change one is
answered 0x0124. Who has such an agreement and an AE title that is a Code Value of the Scheduled Station Name Code Sequence
may claim it, and then has its Transaction UID. A SOP Instance UID that another subscriber has used is taken (0x0111).

- N-CREATE without a SOP Instance UID is given one. Missing or empty attributes of Type 1 are refused (0x0120, 0x0121), undefined
  values of priority and input readiness and malformed start times 0x0106. 0xB300, with the Attribute List of what is kept
  otherwise than sent: attributes of Type 2 that were not sent are kept empty; a Transaction UID, progress and performed
  procedures are not taken; SOP Class and SOP Instance UID in the Data Set give way to those of the message. An empty Worklist
  Label becomes `workitems.worklist_label`. Who creates a workitem is not subscribed by that.
- N-SET of a SCHEDULED workitem: without a Transaction UID, by its subscriber; with one, and for progress and performed
  procedures, 0xC310. IN PROGRESS: with its Transaction UID. 0x0105 for what the table does not allow, and once it is IN
  PROGRESS for another value of Scheduled Workitem Code, Scheduled Processing Parameters, Input Information, Output
  Destination and Study Instance UID; where the archive is to perform it, also before, for every requestor but the AE that
  created it, under the same purpose. Nothing of a refused request is set. Texts in another character set
  make the workitem one in Unicode, where its own cannot hold them.
- Procedure Step Cancellation DateTime is filled in where it is missing; whatever else a final state requires and is
  missing is answered 0xC304.
- N-GET and C-FIND never give the Transaction UID, nor does anything match it; 0x0001 where N-GET asks for it, or for an attribute
  the workitem does not have. Without a list of attributes N-GET gives all.
- Request Cancel: a SCHEDULED workitem becomes IN PROGRESS and CANCELED, with the reasons given or (110513, DCM, "Discontinued for
  unspecified reason"). 0xC312 where a peer performs it and nobody is subscribed to it. 0xC313 is not used.
- Subscriptions are not refused but to more than `workitems.max_watchers` AEs (0x0213), and Receiving AE must be the requestor or
  a peer of its subscriber, else 0xC308. Deletion locks are always granted; an administrator can remove a workitem in spite
  of them. Global subscriptions are about the subscriber's own workitems; an AE has one, filtered or not, the newest. With a lock, the state of what
  is there already is reported; without one it is not. What has ended is kept for `workitems.keep_s`, and until no lock holds it.
- Events go out as the outbox sends them: on an open association of that AE with the UPS Event SOP Class, else on one the archive opens
  with the SCP's role; in order for each workitem, tried again until answered. What finds no room there is dropped. A start
  of the server is reported to all who are subscribed to anything: RESTARTED, WARM START, WARM START; GOING DOWN is not. There is no
  fallback list: subscriptions are kept in the database.
- C-FIND matches every attribute of a workitem by its VR as the Query service does, items of sequences included; keys that are private,
  or the Transaction UID, make responses 0xFF01. A query that would look at more than `workitems.max_candidates` or
  find more than `workitems.max_answers` is refused 0xA700 before its first response.
"""
