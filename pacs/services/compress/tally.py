"""What compression did, in numbers without names."""

from collections import Counter
from dataclasses import dataclass, field

from pacs.core.forms import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one instance; sizes of the files before and after, where it was changed."""

    outcome: Outcome
    reason: str = ""
    before_bytes: int = 0
    after_bytes: int = 0


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of all of them."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    before_bytes: int = 0
    after_bytes: int = 0

    def count(self, result: Result) -> None:
        """Add one."""
        self.outcomes[result.outcome] += 1
        if result.reason:
            self.reasons[result.reason] += 1
        self.before_bytes += result.before_bytes
        self.after_bytes += result.after_bytes

    def facts(self) -> dict[str, object]:
        """Say it as a job's result or an audit event."""
        return {
            **{one.name.lower(): self.outcomes[one] for one in Outcome},
            "before_bytes": self.before_bytes,
            "after_bytes": self.after_bytes,
        }
