"""The rules of profiles: what arrives under a profile's AE title is to be processed when its series is quiet.

Pure functions of an arrival and the snapshot. Each asks by itself for the look at the quiet series,
and not through a ``quiet`` job: that one speaks of the newest instance of the
series, which may have been sent to another AE title.
"""

from collections.abc import Iterable, Sequence

from config.settings import Arrival as ArrivalSettings
from pacs.core.attributes import Level
from pacs.core.identifiers import AETitle
from pacs.core.records import Arrival, Job, Snapshot
from pacs.services.profile.asked import ArrivedWork
from pacs.services.quiet import quiet_after


class ProfileRules:
    """Both rules: ``pacs.core.ports.ArrivalRule`` and ``RepeatRule``."""

    def __init__(self, settings: ArrivalSettings) -> None:
        self._settings = settings

    def arrived(self, arrival: Arrival, snapshot: Snapshot) -> Iterable[Job]:
        """Ask to look at the series when it is quiet."""
        if arrival.level is not Level.IMAGE or not _is_profiles(arrival, snapshot):
            return ()
        return (_work(arrival).job(quiet_after(Level.SERIES, arrival.instance, self._settings)),)

    def repeated(self, arrival: Arrival, snapshot: Snapshot) -> Sequence[Job] | None:
        """Say what follows where it is held already: sent to a profile once more, it is asked for once more.

        While there are profiles, it is noted under which AE title it came: one that gives
        up its sources must not give up what was sent elsewhere too.
        """
        if not snapshot.profiles:
            return None
        if not _is_profiles(arrival, snapshot):
            return ()
        again = arrival.instance.provenance.received_utc.isoformat()
        due_utc = quiet_after(Level.SERIES, arrival.instance, self._settings)
        return (_work(arrival, again=again).job(due_utc),)


def stands_for_profile(snapshot: Snapshot, called: AETitle) -> bool:
    """Tell whether an AE title is that of an active profile."""
    profile = snapshot.profiles.get(called)
    return profile is not None and profile.active


def _is_profiles(arrival: Arrival, snapshot: Snapshot) -> bool:
    return bool(snapshot.profiles) and stands_for_profile(
        snapshot, arrival.instance.provenance.receiving_ae_title
    )


def _work(arrival: Arrival, *, again: str = "") -> ArrivedWork:
    header, origin = arrival.instance.header, arrival.instance.provenance
    return ArrivedWork(
        profile=origin.receiving_ae_title,
        registrant=origin.registrant,
        study_instance_uid=header.study_instance_uid,
        series_instance_uid=header.series_instance_uid,
        source_ae_title=origin.source_ae_title,
        purpose=arrival.caller.purpose,
        again=again,
    )
