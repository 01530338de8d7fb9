"""A made-up index of any size: rows without files, the same rows for the same seed.

Rows go into the real, migrated schema in bulk, without durability and with the
indexes made at the end. What is drawn follows archives as they are: 274
studies a day, fewer at weekends; names and modalities are skewed; UIDs look
like those of scanners, half ``series.number``, a third with a time stamp, the
rest from UUIDs; one series in the middle holds 2,000 instances.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from bench.bulk import bulk
from pacs.core.text import date_time_key, fold_name, name_sounds
from storage.database.connection import Database

REGISTRANT = "local"
LONG_SERIES = 2_000
NEWEST = date(2026, 6, 30)
CT = "1.2.840.10008.5.1.4.1.1.2"
_STUDIES_A_DAY = 274
_BATCH_STUDIES = 2_000
_MODALITIES = {"CR": 25, "DX": 16, "CT": 21, "MR": 15, "US": 12, "MG": 6, "XA": 2, "NM": 2, "PT": 1}
_MANY = frozenset({"CT", "MR", "PT"})  # modalities of many images a study
_PARTS = ("Abdomen", "Chest", "Head", "Hip", "Knee", "Neck", "Pelvis", "Shoulder", "Spine", "Wrist")
_WAYS = ("", " AP", " lateral", " native", " with contrast", " follow-up", " low dose", " urgent")
_SYLLABLES = ("an", "ar", "ba", "ber", "burg", "den", "dor", "el", "en", "fi", "gar", "ger", "ha", "hof",
              "ka", "ko", "la", "lin", "man", "mar", "me", "mu", "ner", "o", "ra", "rich", "sa", "sch",
              "ser", "son", "stein", "ta", "tz", "ul", "va", "wald", "wi")  # fmt: skip
_FIRST_NAMES = ("Ada", "Anna", "Ben", "Clara", "David", "Elif", "Emil", "Eva", "Finn", "Greta", "Hans",
                "Ida", "Jan", "Jörg", "Karl", "Lea", "Luis", "Maria", "Mia", "Nils", "Noah", "Olga",
                "Paul", "Rosa", "Sara", "Theo", "Tom", "Vera", "Yusuf", "Zoë")  # fmt: skip
_COLUMNS = {
    "patient": "id registrant patient_id origin received_utc name_alphabetic name_ideographic "
    "name_phonetic name_sounds patient_name patient_birth_date patient_sex",
    "study": "id patient_row registrant study_instance_uid origin received_utc study_moment "
    "referring_physician_name_key study_date study_time accession_number study_id "
    "study_description referring_physician_name patient_age",
    "series": "id study_row registrant series_instance_uid origin received_utc instance_count "
    "modality series_number series_description series_date series_time body_part_examined "
    "institution_name station_name manufacturer frame_of_reference_uid",
    "study_modality": "modality study_date study_row",
    "instance": "id series_row registrant sop_instance_uid sop_class_uid object_id digest "
    "transfer_syntax_uid place size_bytes data_set_offset received_utc source_ae_title "
    "instance_number image_type content_date content_time rows columns bits_allocated",
}
Rows = dict[str, list[tuple[object, ...]]]


def build(database: Database, studies: int, seed: int = 1) -> None:
    """Fill an empty, migrated database with ``studies`` studies of ten instances on average."""
    with bulk(database) as insert:
        for batch in _Maker(studies, seed).batches():
            for table, rows in batch.items():
                insert(table, _COLUMNS[table].split(), rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Study:
    """What the series and instances of a study have from it."""

    row: int
    uid: str
    form: int
    date: str
    time: str
    received_utc: str
    folder: str
    description: str


class _Maker:
    """Makes patients, then studies one after the other as they were received."""

    def __init__(self, studies: int, seed: int) -> None:
        self._draw = random.Random(seed)
        self._studies = studies
        self._patients = max(1, studies * 2 // 5)
        self._series = self._instance = 0

    def batches(self) -> Iterator[Rows]:
        """Give rows by table, parents first."""
        yield {"patient": list(self._patient_rows())}
        days = self._days()
        for start in range(0, self._studies, _BATCH_STUDIES):
            rows: Rows = {"study": [], "series": [], "instance": [], "study_modality": []}
            for row in range(start + 1, min(start + _BATCH_STUDIES, self._studies) + 1):
                self._add_study(rows, row, days[row - 1])
            yield rows

    def _days(self) -> list[date]:
        count = max(1, self._studies // _STUDIES_A_DAY)
        days = [NEWEST - timedelta(days=number) for number in range(count)]
        weights = [1.25 if day.weekday() < 5 else 0.375 for day in days]
        return sorted(self._draw.choices(days, weights, k=self._studies))

    def _patient_rows(self) -> Iterator[tuple[object, ...]]:
        draw = self._draw
        surnames = ["Müller", "Schmidt", "Meyer", "Mueller", "Wagner"]
        for _ in range(20_000):
            surnames.append("".join(draw.choices(_SYLLABLES, k=draw.choice((2, 2, 3)))).title())
        weights = [1 / (rank + 50) for rank in range(len(surnames))]
        for row, surname in enumerate(draw.choices(surnames, weights, k=self._patients), start=1):
            groups = [f"{surname}^{draw.choice(_FIRST_NAMES)}", "", ""]
            if draw.random() < 0.05:
                kanji = [chr(0x4E00 + draw.randrange(2_000)) for _ in range(4)]
                kana = [chr(0x3042 + draw.randrange(80)) for _ in range(4)]
                groups[1:] = ["^".join((one[0] + one[1], one[2] + one[3])) for one in (kanji, kana)]
            name = "=".join(groups).rstrip("=")
            birth = f"{draw.randrange(1930, 2020)}{draw.randrange(1, 13):02d}15"
            yield (row, REGISTRANT, f"P{row:08d}", self._object_id(row), "2016-01-01T00:00:00.000000Z",
                   *map(fold_name, groups), name_sounds(name), name, birth, draw.choice("FMO"))  # fmt: skip

    def _add_study(self, rows: Rows, row: int, day: date) -> None:
        draw = self._draw
        time = f"{draw.randrange(7, 20):02d}{draw.randrange(60):02d}{draw.randrange(60):02d}"
        uid, form = self._study_uid(f"{day:%Y%m%d}{time}")
        study = _Study(
            row=row,
            uid=uid,
            form=form,
            date=f"{day:%Y%m%d}",
            time=time,
            received_utc=f"{day}T{time[:2]}:{time[2:4]}:{time[4:]}.000000Z",
            folder=f"{day:%Y/%m/%d}/{draw.getrandbits(64):016x}",
            description=draw.choice(_PARTS) + draw.choice(_WAYS),
        )
        referring = f"Doctor{draw.randrange(500)}^{draw.choice(_FIRST_NAMES)}"
        modality = draw.choices(list(_MODALITIES), list(_MODALITIES.values()))[0]
        origin = self._object_id(self._instance + 1)
        rows["study"].append(
            (row, draw.randrange(1, self._patients + 1), REGISTRANT, uid, origin,
             study.received_utc, date_time_key(study.date, time), fold_name(referring) + "\n\n",
             study.date, time, f"A{row:09d}", str(row), study.description, referring,
             f"{draw.randrange(1, 99):03d}Y")
        )  # fmt: skip
        rows["study_modality"].append((modality, study.date, row))
        for number, length in enumerate(self._lengths(row, modality), start=1):
            self._add_series(rows, study, (modality, number, length))

    def _lengths(self, row: int, modality: str) -> list[int]:
        if row == self._studies // 2 + 1:
            return [LONG_SERIES]
        total = self._draw.randrange(13, 31) if modality in _MANY else self._draw.randrange(1, 8)
        count = self._draw.choices((1, 2, 3), (77, 15, 8))[0]
        return [max(1, total // count)] * count

    def _add_series(self, rows: Rows, study: _Study, series: tuple[str, int, int]) -> None:
        modality, number, length = series
        self._series += 1
        uid = f"{study.uid}.{number}" if study.form < 2 else self._uuid_uid()
        origin = self._object_id(self._instance + 1)
        rows["series"].append(
            (self._series, study.row, REGISTRANT, uid, origin, study.received_utc, length, modality,
             str(number), f"{study.description} {number}", study.date, study.time,
             study.description.split()[0].upper(), "City Hospital", f"{modality}{study.row % 9}",
             "Nobody", f"{uid}.9")
        )  # fmt: skip
        prefix = (uid, f"1.3.12.2.1107.5.2.32.35162.{study.date}{study.time}")[study.form % 2]
        for image in range(1, length + 1):
            sop = self._uuid_uid() if study.form == 2 else f"{prefix}.{self._instance + 1}"
            rows["instance"].append(self._instance_row(study, sop, image))

    def _instance_row(
        self, study: _Study, sop_instance_uid: str, number: int
    ) -> tuple[object, ...]:
        self._instance += 1
        object_id = self._object_id(self._instance)
        digest = f"{self._draw.getrandbits(256):064x}"
        place = f"{study.folder}/{object_id}-blake3-{digest}.dcm"
        return (self._instance, self._series, REGISTRANT, sop_instance_uid, CT, object_id,
                f"blake3:{digest}", "1.2.840.10008.1.2.1", place, 526_000, 1_100, study.received_utc,
                "CT1", str(number), "ORIGINAL\\PRIMARY\\AXIAL", study.date, study.time, "512", "512",
                "16")  # fmt: skip

    def _study_uid(self, moment: str) -> tuple[str, int]:
        draw = self._draw
        form = draw.choices((0, 1, 2), (50, 35, 15))[0]
        if form == 2:
            return self._uuid_uid(), form
        if form == 1:
            return (
                f"1.3.12.2.1107.5.2.32.{draw.randrange(35_000, 35_040)}.3000{moment}{draw.getrandbits(40):013d}",
                form,
            )
        return (
            f"1.2.840.113619.2.{draw.randrange(400)}.3.{draw.randrange(50)}.{moment}.{draw.getrandbits(20)}",
            form,
        )

    def _uuid_uid(self) -> str:
        return f"2.25.{self._draw.getrandbits(128)}"

    def _object_id(self, number: int) -> str:
        """Time-ordered, like those issued: 48 bits that grow, then random ones."""
        text = f"{1_450_000_000_000 + number:012x}7{self._draw.getrandbits(76):019x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
