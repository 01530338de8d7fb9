"""What we rely on in pynetdicom is still what we wrote it against."""

from importlib.metadata import version

import pytest
from pynetdicom.fsm import ACTIONS, TRANSITION_TABLE

from pacs.association import overrides


def test_the_version_is_the_one_this_was_written_against() -> None:
    assert version("pynetdicom") == overrides.PYNETDICOM


@pytest.mark.parametrize(
    ("owner", "name"),
    [(owner, name) for owner, names in overrides.RELIED_ON.items() for name in names],
)
def test_what_is_relied_on_exists(owner: object, name: str) -> None:
    one = owner() if isinstance(owner, type) else owner
    assert hasattr(one, name)


def test_the_tables_are_those_of_the_standard() -> None:
    """PS3.8 Table 9-10: how many transitions, and where each action leads."""
    assert len(TRANSITION_TABLE) == 123
    assert set(TRANSITION_TABLE.values()) == set(ACTIONS)
    several = {name: action[2] for name, action in ACTIONS.items() if isinstance(action[2], tuple)}
    assert several == {"AE-6": ("Sta3", "Sta13"), "AR-8": ("Sta9", "Sta10")}
    closing = {name for name, action in ACTIONS.items() if action[2] == "Sta1"}
    assert closing == {"AE-4", "AR-3", "AR-5", "AA-2", "AA-3", "AA-4", "AA-5"}
