"""Processing profiles: an AE title that stands for an operation. What is sent there is processed when it is quiet."""

from pacs.services.profile.admin import Profiles
from pacs.services.profile.rule import ProfileRules, stands_for_profile

__all__ = ["ProfileRules", "Profiles", "stands_for_profile"]
