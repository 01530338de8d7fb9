"""How texts are compared: person names folded, dates and times normalised, wildcards. PS3.4 Section C.2.2.2.

Pure functions on strings. The index fills its companion columns with them and
matching asks the same functions again, so both always agree. Which key gets
which kind of matching is decided in ``pacs.services``.
"""

import re
import unicodedata
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

# --- person names ---------------------------------------------------------------

NAME_GROUPS = 3  # alphabetic, ideographic, phonetic: PS3.5 Section 6.2.1
_KANA_MARKS = {"\u3099", "\u309a"}  # voicing makes another syllable, not an accent
_LETTERS = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th"}
)


def fold_name(group: str) -> str:
    """Fold one component group: no case, no accents, no padding, no trailing ``^``.

    Wildcards pass through, so a key is folded the same way. Folding twice
    changes nothing.

    Examples
    --------
    >>> fold_name(" Müller^ Jörg ^^")
    'muller^jorg'
    """
    return "^".join(_trimmed(_fold_letters(group).split("^")))


def _fold_letters(text: str) -> str:
    if text.isascii():
        return text.lower()  # what all of this makes of it
    folded = text
    for _ in range(2):  # casefolding can bring accents about, and stripping them capitals
        spread = unicodedata.normalize("NFKD", folded.casefold())
        bare = (c for c in spread if c in _KANA_MARKS or not unicodedata.combining(c))
        folded = unicodedata.normalize("NFKC", "".join(bare).translate(_LETTERS)).casefold()
    return folded


def _trimmed(components: list[str]) -> list[str]:
    kept = [" ".join(one.split()) for one in components]
    while kept and not kept[-1]:
        kept.pop()
    return kept


def name_groups(value: str) -> tuple[str, str, str]:
    """Split one PN value into its folded alphabetic, ideographic and phonetic groups."""
    folded = [fold_name(one) for one in value.split("=")[:NAME_GROUPS]]
    folded += [""] * (NAME_GROUPS - len(folded))
    return folded[0], folded[1], folded[2]


_SOUND = {
    letter: digit
    for digit, letters in enumerate(("bfpv", "cgjkqsxz", "dt", "l", "mn", "r"), start=1)
    for letter in letters
}
_WORD_BREAKS = re.compile(r"[\^\s=\\,.\-'’]+")


def name_words(value: str) -> tuple[str, ...]:
    """List the folded words of a PN value, whatever group or component they stand in."""
    folded = "^".join(fold_name(group) for group in value.split("="))
    return tuple(word for word in _WORD_BREAKS.split(folded) if word)


def word_sound(word: str) -> str:
    """Code how a folded word sounds: Soundex for Latin letters, the word itself otherwise.

    Examples
    --------
    >>> word_sound("muller"), word_sound("mueller"), word_sound("山田")
    ('M460', 'M460', '山田')
    """
    if not ("a" <= word[0] <= "z"):
        return word
    digits: list[str] = []
    last = _SOUND.get(word[0], 0)
    for letter in word[1:]:
        digit = _SOUND.get(letter, 0)
        if digit and digit != last:
            digits.append(str(digit))
        if letter not in "hw":  # these two do not part equal sounds
            last = digit
    return (word[0].upper() + "".join(digits) + "000")[:4]


def name_sounds(value: str) -> str:
    """Code all words of a PN value, each between blanks: `` M460 J620 ``; empty when there are none."""
    sounds = sorted({word_sound(word) for word in name_words(value)})
    return f" {' '.join(sounds)} " if sounds else ""


# --- wildcards ------------------------------------------------------------------


def has_wildcard(text: str) -> bool:
    """Tell whether a key holds ``*`` or ``?``."""
    return "*" in text or "?" in text


def wildcard_matches(pattern: str, text: str) -> bool:
    """Match ``*`` (any run of characters) and ``?`` (exactly one), case-sensitively.

    A peer chooses the pattern: what stands between two ``*`` is looked for
    once, from left to right, and what was found is never tried again.
    """
    first, *others = pattern.split("*")
    if not others:
        return len(text) == len(pattern) and _run(pattern).match(text) is not None
    last = others.pop()
    end = len(text) - len(last)
    at = len(first)
    if end < at or not _run(first).match(text) or not _run(last).match(text, end):
        return False
    for one in filter(None, others):
        found = _run(one).search(text, at, end)
        if found is None:
            return False
        at = found.end()
    return True


@lru_cache(maxsize=1_024)
def _run(part: str) -> re.Pattern[str]:
    """Compile a part of a pattern that holds no ``*``."""
    return re.compile(".".join(map(re.escape, part.split("?"))), re.DOTALL)


def literal_prefix(pattern: str) -> str:
    """Give the characters before the first wildcard."""
    return re.split(r"[*?]", pattern, maxsplit=1)[0]


def next_prefix(prefix: str) -> str | None:
    """Give the smallest text above every text that begins with ``prefix``; ``None`` if there is none."""
    for length in range(len(prefix), 0, -1):
        code = ord(prefix[length - 1]) + 1
        code = 0xE000 if code == 0xD800 else code  # surrogates are no characters
        if code <= 0x10FFFF:
            return prefix[: length - 1] + chr(code)
    return None


# --- dates and times --------------------------------------------------------------

_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})\Z|(\d{4})\.(\d{2})\.(\d{2})\Z")
_TIME = re.compile(r"(\d{2})(?::?(\d{2})(?::?(\d{2})(?:\.(\d{1,6}))?)?)?\Z")
_DATE_TIME = re.compile(
    r"(\d{4})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:\.(\d{1,6}))?)?)?)?)?)?"
    r"([+-]\d{4})?\Z"
)
_OFFSET = re.compile(r"([+-])(\d{2})(\d{2})\Z")


def normal_date(text: str) -> str | None:
    """Give a DA value as ``YYYYMMDD``, the old form ``YYYY.MM.DD`` too; ``None`` if it is no date."""
    found = _DATE.match(text.strip())
    if found is None:
        return None
    digits = "".join(part for part in found.groups() if part)
    try:
        date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None
    return digits


def normal_time(text: str, *, last: bool = False) -> str | None:
    """Give a TM value as ``HHMMSS.FFFFFF``; ``None`` if it is no time.

    A value cut short means its first instant, or with ``last`` its last one:
    ``1159`` → ``115959.999999``. Colons as in the old form are taken.
    """
    found = _TIME.match(text.strip())
    if found is None:
        return None
    hour, minute, second, fraction = found.groups()
    filled = [hour, minute or ("59" if last else "00"), second or ("59" if last else "00")]
    if int(hour) > 23 or int(filled[1]) > 59 or int(filled[2]) > 60:
        return None
    return "".join(filled) + "." + (fraction or "").ljust(6, "9" if last else "0")


def date_time_key(day_text: str, time_text: str) -> str:
    """Join a date and a time as the index does: empty without a date, date only without a time."""
    day = normal_date(day_text)
    return "" if day is None else day + (normal_time(time_text) or "")


def offset_minutes(text: str) -> int | None:
    """Read a Timezone Offset From UTC, ``+0100`` → 60; ``None`` if it is none (PS3.3 Section C.12.1.1.8)."""
    found = _OFFSET.match(text.strip())
    if found is None:
        return None
    minutes = int(found[2]) * 60 + int(found[3])
    signed = minutes if found[1] == "+" else -minutes
    return signed if int(found[3]) < 60 and -720 <= signed <= 840 else None


def date_time_bounds(text: str) -> tuple[datetime, datetime, int | None] | None:
    """Give first and last instant a DT value can mean, and its offset in minutes if it names one.

    ``None`` if it is no DT value. The instants are the clock's reading, whatever
    the offset; that they are marked UTC means nothing.
    """
    found = _DATE_TIME.match(text.strip())
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, offset = found.groups()
    minutes = offset_minutes(offset) if offset else None
    if offset and minutes is None:
        return None
    try:
        low = datetime(int(year), int(month or 1), int(day or 1), tzinfo=UTC)
        low = low.replace(hour=int(hour or 0), minute=int(minute or 0))
    except ValueError:
        return None
    if int(second or 0) > 60:
        return None
    low += timedelta(seconds=min(int(second or 0), 59))  # a leap second is the end of its minute
    low += timedelta(microseconds=int((fraction or "").ljust(6, "0")))
    return low, _last_instant(low, found.groups()), minutes


def _last_instant(low: datetime, parts: tuple[str | None, ...]) -> datetime:
    _, month, day, hour, minute, second, fraction, _ = parts
    tick = timedelta(microseconds=1)
    if month is None:
        return low.replace(month=12, day=31, hour=23, minute=59, second=59, microsecond=999_999)
    if day is None:
        first_of_next = (low + timedelta(days=31)).replace(day=1) if low.month < 12 else None
        if first_of_next is not None:
            return first_of_next - tick
        return low.replace(day=31, hour=23, minute=59, second=59, microsecond=999_999)
    spans = (
        (hour, timedelta(days=1)),
        (minute, timedelta(hours=1)),
        (second, timedelta(minutes=1)),
    )
    for part, span in spans:
        if part is None:
            return low + (span - tick)
    return low + timedelta(microseconds=10 ** (6 - len(fraction or "")) - 1)
