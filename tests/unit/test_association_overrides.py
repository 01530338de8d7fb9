"""What we override in pynetdicom is still what we wrote it against."""

from importlib.metadata import version

import pytest
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association

from pacs.association import overrides


def test_the_version_is_the_one_the_overrides_were_written_against() -> None:
    assert version("pynetdicom") == overrides.PYNETDICOM


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, names in overrides.RELIED_ON.items() for name in names],
)
def test_what_is_overridden_or_called_exists(kind: type, name: str) -> None:
    assert hasattr(kind, name)


def test_instance_attributes_exist() -> None:
    association = Association(ApplicationEntity("TEST"), "acceptor")
    instances = (association, association.dul, association.dimse)
    for kind, names in overrides.RELIED_ON_INSTANCE.items():
        one = next(each for each in instances if isinstance(each, kind))
        assert [name for name in names if not hasattr(one, name)] == []
