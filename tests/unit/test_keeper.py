"""What the keeper does where the database is not there: nobody knows whose the job is by then."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from config.settings import Jobs
from pacs.core.errors import RecordsFailed
from pacs.core.job_ports import JobTable
from pacs.core.work import Claim
from pacs.jobs.context import LOST, Context
from pacs.jobs.keeper import Keeper
from pacs.jobs.schedules import Scheduler


class Away:
    """A table of jobs that cannot be reached."""

    def beat(self, claim: Claim, lease_s: float | None) -> Any:
        raise RecordsFailed("away")

    def now(self) -> Any:
        raise AssertionError("nothing here has a deadline")


def test_a_handler_is_told_to_stop_when_its_lease_could_not_be_kept() -> None:
    table = cast(JobTable, Away())
    settings = Jobs(lease_s=10.0)
    scheduler = cast(Scheduler, SimpleNamespace(tick=lambda: None))
    keeper = Keeper(table, scheduler, settings, owner="me", give_up=lambda: None)
    claim = Claim(
        id=1,
        lease=1,
        queue="q",
        kind="k",
        payload="{}",
        attempts=1,
        max_attempts=None,
        deadline_utc=None,
        has_children=False,
    )
    context = Context(table, claim, max_log_lines=10, max_children=10)
    with keeper.holding(context):
        for since_s, stopped in ((9.0, False), (10.5, True)):
            keeper._begun -= since_s - (0.0 if since_s == 9.0 else 9.0)
            keeper._extended = keeper._begun
            with pytest.raises(RecordsFailed):
                keeper._beat()
            assert context.cancelled() is stopped
    assert context.stopping == LOST
