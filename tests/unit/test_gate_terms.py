"""What a contract comes to: rights, visibility, destinations and bounds, under each purpose."""

from datetime import timedelta
from typing import Any

import pytest

from pacs.core.caller import Right, SubscriberName
from pacs.core.contract import Agreement, ContractState, Purpose
from pacs.core.errors import NotAuthorized
from pacs.core.identifiers import AETitle, StudyInstanceUID
from pacs.services.gate import Terms, resolved
from tests.legitimacy import ALL_RIGHTS, NOW, Book, contract, device

BETA, GAMMA = SubscriberName("beta"), SubscriberName("gamma")
STUDY = StudyInstanceUID("1.2.3")
TEACHING = Purpose(
    name="teaching", modalities=frozenset({"CT"}), max_matrix=256, process=False, report=False
)
CARE = Purpose(name="care")


def terms(stated: str = "", **more: Any) -> Terms:
    made = contract(**more)
    book = Book(made, contract("beta"), device("CT1"), device("CT2"), device("B1", "beta"))
    return resolved(made, book.snapshot, stated, NOW)


def test_a_subscriber_sees_its_own_and_may_send_to_its_own_devices() -> None:
    found = terms(destinations=frozenset({AETitle("FRIEND")}))
    assert found.visibility.registrants == {"alpha"} and not found.visibility.everything
    assert found.destinations == {"CT1", "CT2", "FRIEND"}
    assert (found.rights, found.purpose, found.max_matrix) == (ALL_RIGHTS, "", None)
    assert found.visibility.modalities is None


def test_agreements_show_a_facility_a_study_or_everything() -> None:
    facility, study = Agreement(owner=BETA), Agreement(owner=GAMMA, study_instance_uid=STUDY)
    found = terms(agreements=(facility, study)).visibility
    assert found.registrants == {"alpha", "beta"}
    assert found.studies == {("gamma", STUDY)} and not found.everything
    assert terms(agreements=(Agreement(owner=None),)).visibility.everything


def test_a_study_of_nobody_in_particular_is_everybodys_and_nothing_more() -> None:
    one = Agreement(owner=None, study_instance_uid=STUDY)
    found = terms(agreements=(one,)).visibility
    assert found.studies == {("alpha", STUDY), ("beta", STUDY), ("local", STUDY)}
    assert not found.everything and found.registrants == {"alpha"}


def test_an_agreement_for_a_purpose_holds_under_it_only() -> None:
    agreements = (Agreement(owner=BETA, purpose="care"), Agreement(owner=None, purpose="teaching"))
    more = {"agreements": agreements, "purposes": (TEACHING, CARE)}
    assert terms(**more).visibility.registrants == {"alpha"}
    care = terms("care", **more).visibility
    assert care.registrants == {"alpha", "beta"} and not care.everything
    assert terms("teaching", **more).visibility.everything


def test_a_purpose_bounds_images_and_rights() -> None:
    found = terms("teaching", purposes=(TEACHING, CARE))
    assert found.rights == ALL_RIGHTS - {Right.PROCESS, Right.REPORT}
    assert (found.visibility.modalities, found.max_matrix) == ({"CT"}, 256)
    assert found.purpose == "teaching"


def test_the_contract_s_own_purpose_is_the_one_not_stated() -> None:
    found = terms(purposes=(TEACHING, CARE), purpose="teaching")
    assert (found.purpose, found.max_matrix) == ("teaching", 256)
    assert terms("care", purposes=(TEACHING, CARE), purpose="teaching").max_matrix is None


@pytest.mark.parametrize("more", [{}, {"purposes": (CARE,)}, {"purpose": "research"}])
def test_a_purpose_the_contract_does_not_have_grants_nothing(more: dict[str, Any]) -> None:
    with pytest.raises(NotAuthorized):
        terms("research", **more)


@pytest.mark.parametrize("state", sorted(set(ContractState) - {ContractState.ACTIVE}, key=str))
def test_only_an_active_contract_grants_anything(state: ContractState) -> None:
    with pytest.raises(NotAuthorized):
        terms(state=state)


def test_a_contract_holds_from_its_beginning_until_before_its_end() -> None:
    assert terms(begins_utc=NOW, ends_utc=NOW + timedelta(seconds=1))
    for more in ({"begins_utc": NOW + timedelta(seconds=1)}, {"ends_utc": NOW}):
        with pytest.raises(NotAuthorized):
            terms(**more)
