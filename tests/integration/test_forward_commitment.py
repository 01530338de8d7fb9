"""A destination that answers for what it was sent, for some of it, not at all, or does not offer to."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pacs.app.archive import Archive
from pacs.core.forwarding import COMMITMENT, CommitmentWork
from pacs.core.job_ports import JobContext
from pacs.core.routing import Commitment
from pacs.core.work import JobState, Permanent
from pacs.jobs.kinds import JobKind
from tests.forwarding import (
    QUICK,
    Given,
    Scripted,
    ask,
    jobs,
    receiver,
    routed,
    states,
    study_of,
    used,
    work,
    worked,
)
from tests.keeping import ADMIN, opened


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def archive(url: str, tmp_path: Path) -> Iterator[Archive]:
    with opened(tmp_path, url, **QUICK) as made:
        yield made


@pytest.fixture
def to(archive: Archive) -> Iterator[Scripted]:
    with receiver() as made:
        archive.peers.add(ADMIN, "DEST", "127.0.0.1", made.port)
        yield made


@dataclass
class Answers:
    """The handler of commitment requests: what it was asked, and what it answers next."""

    asked: list[CommitmentWork] = field(default_factory=list)
    lacking: dict[str, int] = field(default_factory=dict)
    offered: bool = True
    silent: bool = False

    def handle(self, context: JobContext[CommitmentWork]) -> dict[str, Any]:
        """Answer one request."""
        self.asked.append(context.payload)
        if self.silent:
            raise Permanent("no report came in 60 s")
        uids = [uid for _, uid in context.payload.references]
        failed = {uid: self.lacking[uid] for uid in uids if uid in self.lacking}
        committed = len(uids) - len(failed) if self.offered else 0
        return {"offered": self.offered, "committed": committed, "failed": failed}

    @property
    def uids(self) -> list[list[str]]:
        """The references of each request."""
        return [sorted(uid for _, uid in one.references) for one in self.asked]

    def worked(self, archive: Archive, given: Given) -> None:
        """Work until every job has ended."""
        kind = JobKind(handler=self.handle, payload=CommitmentWork, queue="commitment")
        worked(archive, given, more={COMMITMENT: kind})


def committed(archive: Archive) -> int:
    found: dict[str, int] = json.loads(jobs(archive)[-1].result or "{}")
    return found["committed"]


def test_what_was_sent_is_answered_for(archive: Archive, to: Scripted) -> None:
    uids, answers = study_of(archive, "1.2.3", 4), Answers()
    given = routed("r", commitment=Commitment.REQUIRED)
    ask(archive, work("1.2.3", "DEST", route="r"))
    answers.worked(archive, given)
    assert answers.uids == [sorted(uids)]
    assert answers.asked[0].required
    assert (states(archive), committed(archive)) == (["done"], 4)
    more = study_of(archive, "1.2.3", 1, first=5)
    ask(archive, work("1.2.3", "DEST", route="r"))
    answers.worked(archive, given)
    assert answers.uids[1:] == [more]
    ask(archive, work("1.2.3", "DEST", route="r"))
    answers.worked(archive, given)
    assert len(answers.asked) == 2, "what is answered for is not asked about again"
    assert len(to.got) == 5


def test_what_the_destination_lacks_is_sent_again(archive: Archive, to: Scripted) -> None:
    uids, answers = study_of(archive, "1.2.3", 4), Answers(lacking={"1.2.3.0.2": 0x0112})
    given = routed("r", commitment=Commitment.OFFERED)
    ask(archive, work("1.2.3", "DEST", route="r"))
    answers.worked(archive, given)
    (row,) = jobs(archive)
    assert (row.state, row.attempts) == (JobState.FAILED, 3)
    assert "not committed: 1.2.3.0.2 (reason 0112)" in row.last_error
    assert answers.uids == [sorted(uids), ["1.2.3.0.2"], ["1.2.3.0.2"]]
    assert len(to.got) == 6
    answers.lacking.clear()
    archive.jobs.retry(ADMIN, row.id)
    answers.worked(archive, given)
    assert (states(archive), committed(archive)) == (["done"], 4)
    assert to.got.count("1.2.3.0.2") == 4 and len(to.got) == 7
    assert used(archive, "deliver", "DEST") == 7


def test_a_destination_that_does_not_offer_it_ends_well(archive: Archive, to: Scripted) -> None:
    study_of(archive, "1.2.3", 2)
    answers, given = Answers(offered=False), routed("r", commitment=Commitment.OFFERED)
    ask(archive, work("1.2.3", "DEST", route="r"))
    answers.worked(archive, given)
    assert (states(archive), committed(archive)) == (["done"], 0)
    assert not answers.asked[0].required


def test_without_a_report_the_job_says_so_and_asks_anew(archive: Archive, to: Scripted) -> None:
    study_of(archive, "1.2.3", 3)
    answers, given = Answers(silent=True), routed("r", commitment=Commitment.OFFERED)
    ask(archive, work("1.2.3", "DEST", route="r"))
    answers.worked(archive, given)
    (row,) = jobs(archive)
    assert row.state is JobState.FAILED
    assert "no report came in 60 s" in row.last_error
    answers.silent = False
    archive.jobs.retry(ADMIN, row.id)
    answers.worked(archive, given)
    assert (states(archive), committed(archive)) == (["done"], 3)
    assert (len(to.got), len(answers.asked)) == (3, 2)


def test_what_comes_while_the_answer_is_awaited_is_asked_about_too(
    archive: Archive, to: Scripted
) -> None:
    uids, answers = study_of(archive, "1.2.3", 2), Answers()
    given, late = routed("r", commitment=Commitment.OFFERED), []

    def answer(context: JobContext[CommitmentWork]) -> dict[str, Any]:
        if not late:
            late.extend(study_of(archive, "1.2.3", 1, first=3))
        return answers.handle(context)

    kind = JobKind(handler=answer, payload=CommitmentWork, queue="commitment")
    ask(archive, work("1.2.3", "DEST", route="r"))
    worked(archive, given, more={COMMITMENT: kind})
    assert answers.uids == [sorted(uids), late]
    assert (states(archive), committed(archive)) == (["done", "done"], 3)
    assert sorted(to.got) == sorted([*uids, *late])
