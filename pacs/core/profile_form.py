"""Profiles as JSON: the form in which they are kept, exported and imported.

Owns that form and nothing else: what is read is of the right types, whether it
makes sense is for ``pacs.services.profile``.
"""

from pacs.core.identifiers import AETitle
from pacs.core.json_form import Form, Json
from pacs.core.processing import Keep, ProcessingOrder, Profile


def form_of(profile: Profile) -> Json:
    """Write a profile so that ``profile_of`` reads the same one."""
    order = profile.order
    return {
        "ae_title": profile.ae_title,
        "active": profile.active,
        "operation": order.operation,
        "version": order.version,
        "parameters": dict(order.parameters),
        "series_description": order.series_description,
        "to": list(order.destinations),
        "to_sender": profile.asker,
        "keep_results": order.keep_results.value,
        "keep_sources": profile.keep_sources.value,
        "group": order.group,
    }


def profile_of(form: object) -> Profile:
    """Read a profile. Only ae_title and operation are needed. Raises ``EntryConflicts`` naming the place."""
    said = Form(form, "a profile")
    ae_title = AETitle(said.text("ae_title"))
    said.place = f"profile {ae_title}"
    profile = Profile(
        ae_title=ae_title,
        order=ProcessingOrder(
            operation=said.text("operation"),
            version=said.text("version", ""),
            parameters=said.mapping("parameters"),
            series_description=said.text("series_description", ""),
            destinations=tuple(AETitle(one) for one in said.texts("to", [])),
            keep_results=said.choice("keep_results", Keep, Keep.YES),
            group=said.text("group", ""),
        ),
        asker=said.flag("to_sender"),
        keep_sources=said.choice("keep_sources", Keep, Keep.YES),
        active=said.flag("active", missing=True),
    )
    said.close()
    return profile
