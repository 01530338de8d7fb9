"""Our Application Entity as peers see it, on both sides of an association. PS3.7 Annex D.3.3.2."""

from typing import TypeVar

from pynetdicom import AE

from pacs.core.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

Entity = TypeVar("Entity", bound=AE)


def ours(entity: Entity) -> Entity:
    """Let an entity name this implementation, not the library under it."""
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return entity
