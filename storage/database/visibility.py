"""What a caller sees, said in SQL: the one place that turns a ``Visibility`` into conditions.

Finding and retrieving put them into the query itself. Who sees whole
registrants needs one column of whatever table is asked. Where single studies
or some modalities are seen, a series decides: a study is seen by a series that
is, a patient by a study, an instance by its series, and nothing is counted
that is not seen. Refuses to decide who sees what: the gate does.
"""

import json
from collections.abc import Sequence

from pacs.core.attributes import Level
from pacs.core.caller import Visibility
from storage.database.find_sql import TABLES, Dialect, Sql, joined, one_of

MOST_MARKS = 100
"""More values than this are handed over as one parameter: statements have a limit of them."""

ALIVE = {  # something delivered is left of it
    Level.PATIENT: "EXISTS (SELECT 1 FROM study AS lived JOIN series AS held "
    "ON held.study_row = lived.id WHERE lived.patient_row = patient.id AND held.instance_count > 0)",
    Level.STUDY: "EXISTS (SELECT 1 FROM series AS held "
    "WHERE held.study_row = study.id AND held.instance_count > 0)",
    Level.SERIES: "series.instance_count > 0",
    # The second is implied by the first; saying it lets the index of SOP Instance UIDs be used.
    Level.IMAGE: "instance.delivered = 1 AND instance.deleted_by IS NULL",
}
_AGREED = {  # one parameter for all studies, found by their unique key; read once per statement
    "sqlite": "SELECT agreed.{column} FROM json_each(?) AS pair CROSS JOIN study AS agreed "
    "ON agreed.study_instance_uid = json_extract(pair.value, '$[1]') "
    "AND agreed.registrant = json_extract(pair.value, '$[0]')",
    "postgresql": "SELECT agreed.{column} FROM unnest(?::text[], ?::text[]) "
    "AS pair (registrant, uid) JOIN study AS agreed "
    "ON agreed.study_instance_uid = pair.uid AND agreed.registrant = pair.registrant",
}


class Sight:
    """A visibility as one query says it."""

    def __init__(self, visibility: Visibility, dialect: Dialect) -> None:
        self._dialect = dialect
        self._everything = visibility.everything
        self._registrants = tuple(sorted(visibility.registrants))
        whole = visibility.registrants
        singles = () if self._everything else visibility.studies
        self._studies = tuple(sorted(one for one in singles if one[0] not in whole))
        modalities = visibility.modalities
        self._modalities = None if modalities is None else tuple(sorted(modalities))
        self.by_registrant = not self._studies and self._modalities is None
        """Whether the registrant alone decides, whatever lies below it."""

    def entities(self, chain: Sequence[Level]) -> list[Sql]:
        """What of the deepest level of joined tables is there and seen; those above then are, too."""
        if self.by_registrant:
            whose = [self._whose(f"{TABLES[level]}.registrant") for level in chain]
            return [*whose, Sql(ALIVE[chain[-1]])]
        seen = {
            Level.PATIENT: self._patient,
            Level.STUDY: self._study,
            Level.SERIES: self._series,
            Level.IMAGE: self._instance,
        }
        return [seen[chain[-1]]()]

    def series(self, alias: str, *, met: bool = False) -> Sql:
        """Which series are seen, their table joined as ``alias``.

        Those ``met`` on the way from a patient or instance are looked at one by one: SQLite would
        rather go through all studies agreed on for each patient, 850 ms for 3,000 of them.
        """
        of = self._of(f"{alias}.registrant", f"{'+' if met else ''}{alias}.study_row")
        return joined([of, *self.kinds(alias)], "AND")

    def kinds(self, alias: str) -> list[Sql]:
        """Which modalities of series are seen, where that is not all."""
        if self._modalities is None:
            return []
        return [self._one_of(f"{alias}.modality", self._modalities)]

    # --- level by level, where a series decides ------------------------------------------

    def _patient(self) -> Sql:
        seen = self.series("held", met=True)
        lives = Sql(
            "EXISTS (SELECT 1 FROM study AS lived JOIN series AS held ON held.study_row = lived.id "
            "WHERE lived.patient_row = patient.id AND held.instance_count > 0 "
            f"AND {seen.text})",
            seen.params,
        )
        return joined([*self._owned("patient"), *self._listed(), lives], "AND")

    def _study(self) -> Sql:
        kinds = joined([Sql("held.instance_count > 0"), *self.kinds("held")], "AND")
        lives = Sql(
            "EXISTS (SELECT 1 FROM series AS held WHERE held.study_row = study.id "
            f"AND {kinds.text})",
            kinds.params,
        )
        return joined([self._of("study.registrant", "study.id"), lives], "AND")

    def _series(self) -> Sql:
        return joined([Sql(ALIVE[Level.SERIES]), self.series("series")], "AND")

    def _instance(self) -> Sql:
        seen = self.series("held", met=True)
        within = Sql(
            "EXISTS (SELECT 1 FROM series AS held WHERE held.id = instance.series_row "
            f"AND {seen.text})",
            seen.params,
        )
        return joined([Sql(ALIVE[Level.IMAGE]), *self._owned("instance"), within], "AND")

    # --- whose it is ---------------------------------------------------------------------

    def _of(self, registrant: str, study_row: str) -> Sql:
        """Belongs to a registrant that is seen as a whole, or to a study that is."""
        if not self._studies:
            return self._whose(registrant)
        agreed = self._agreed("id")
        single = Sql(f"{study_row} IN ({agreed.text})", agreed.params)
        if not self._registrants:
            return single
        return joined([self._whose(registrant), single], "OR")

    def _whose(self, registrant: str) -> Sql:
        if self._everything:
            return Sql("1=1")
        return self._one_of(registrant, self._registrants)

    def _owned(self, table: str) -> list[Sql]:
        """Say less than all, but what the row itself can tell before anything below it is read."""
        if self._everything:
            return []
        owners = {*self._registrants, *(registrant for registrant, _ in self._studies)}
        return [self._one_of(f"{table}.registrant", tuple(sorted(owners)))]

    def _listed(self) -> list[Sql]:
        """Name the patients of single studies, where nothing else is seen: an index leads to them."""
        if not self._studies or self._registrants:
            return []
        agreed = self._agreed("patient_row")
        return [Sql(f"patient.id IN ({agreed.text})", agreed.params)]

    def _agreed(self, column: str) -> Sql:
        text = _AGREED[self._dialect].format(column=column)
        if self._dialect == "sqlite":
            return Sql(text, (json.dumps(self._studies),))
        registrants, uids = zip(*self._studies, strict=True)
        return Sql(text, (list(registrants), list(uids)))

    def _one_of(self, column: str, values: tuple[str, ...]) -> Sql:
        if len(values) <= MOST_MARKS:
            return one_of(column, values)
        if self._dialect == "sqlite":
            return Sql(f"{column} IN (SELECT value FROM json_each(?))", (json.dumps(values),))
        return Sql(f"{column} = ANY (?::text[])", (list(values),))
