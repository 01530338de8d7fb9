"""Importing an operation by its place, "module:ATTRIBUTE", and what it has to look like.

Knows of no list of operations: the sandboxed worker imports the one it needs.
"""

import importlib
import re

from processing.operations.operation import Operation
from processing.operations.parameters import Parameters

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_VERSION = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6}){0,3}")
_CONTRAST = re.compile(r"[A-Z][A-Z0-9_]{0,15}")


class OperationInvalid(ValueError):
    """What is offered as an operation is none, or is there already; the text says which."""


def loaded(place: str) -> Operation:
    """Import the operation at a place. Raises ``OperationInvalid``."""
    module, _, attribute = place.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever others' code raises as it is imported
        raise OperationInvalid(f"operation {place} cannot be loaded: {error!r}") from error
    if not isinstance(found, Operation):
        raise OperationInvalid(f"{place} is no Operation")
    if reason := _fault(found):
        raise OperationInvalid(f"operation {place}: {reason}")
    return found


def _fault(operation: Operation) -> str:
    """Tell what keeps an operation from being offered: its words go into Data Sets."""
    for what, word, form in (
        ("name", operation.name, _NAME),
        ("version", operation.version, _VERSION),
        ("contrast", operation.contrast, _CONTRAST),
    ):
        if not form.fullmatch(word):
            return f"its {what} is not of the form {form.pattern}"
    if not issubclass(operation.parameters, Parameters):
        return "its parameters are no Parameters"
    if not (operation.parameters.__doc__ or "").strip():
        return "its parameters say nothing about it"
    return ""
