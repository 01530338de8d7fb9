"""Negotiation as a pure function. PS3.7 Annex D.3, PS3.8 Section 9.3.3.2."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import Dicom
from pacs.association.message import Offer
from pacs.association.negotiation import (
    GROUPS,
    LOSSY,
    Agreement,
    Proposed,
    Roles,
    answer_extended,
    choose_syntax,
    may_be_storage,
    negotiate,
)
from pacs.core.caller import Caller, SubscriberName, Visibility

ORDER = Dicom().transfer_syntax_order
EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
JPEG_LOSSY, J2K, RLE = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5"
CT, FIND, ECHO = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.1.1"
MPPS, PRINT = "1.2.840.10008.3.1.2.3.3", "1.2.840.10008.5.1.1.9"
STORAGE = Offer(sop_classes={CT: "CT"}, any_other_class=True)
GET = Offer(sop_classes={CT: "CT"}, scu_role=True)
QUERY = Offer(
    sop_classes={FIND: "FIND"},
    transfer_syntaxes=(EXPLICIT, IMPLICIT),
    extended=lambda asked: bytes(one & 1 for one in asked),
)

syntaxes = st.lists(
    st.sampled_from([*GROUPS, JPEG_LOSSY, "1.2.840.10008.1.2.4.91", "1.2.3.4"]),
    min_size=1,
    unique=True,
)


def one(
    uid: str, *offered: str, roles: Roles | None = None, offers: tuple[Offer, ...]
) -> Agreement:
    proposed = Proposed(context_id=1, abstract_syntax=uid, transfer_syntaxes=offered)
    asked = {} if roles is None else {uid: roles}
    return negotiate([proposed], asked, offers=offers, order=ORDER)


RECEIVER = Caller(
    subscriber=SubscriberName("x"), rights=frozenset(), visibility=Visibility(everything=True)
)
PREFERRING = replace(GET, preferred=lambda caller, uid: (RLE, J2K) if uid == CT else ())


@pytest.mark.parametrize(
    ("roles", "offered", "chosen"),
    [
        (Roles(scu=False, scp=True), (EXPLICIT, J2K, RLE), RLE),
        (Roles(scu=False, scp=True), (EXPLICIT, J2K), J2K),
        (Roles(scu=False, scp=True), (IMPLICIT, EXPLICIT), EXPLICIT),
        (Roles(scu=True, scp=True), (EXPLICIT, RLE), EXPLICIT),
        (None, (EXPLICIT, RLE), EXPLICIT),
    ],
)
def test_what_an_offer_prefers_goes_first_to_who_only_receives(
    roles: Roles | None, offered: tuple[str, ...], chosen: str
) -> None:
    proposed = Proposed(context_id=1, abstract_syntax=CT, transfer_syntaxes=offered)
    asked = {} if roles is None else {CT: roles}
    found = negotiate([proposed], asked, offers=(PREFERRING,), order=ORDER, caller=RECEIVER)
    assert found.accepted[1].transfer_syntax == chosen
    limited = replace(PREFERRING, transfer_syntaxes=(EXPLICIT, IMPLICIT))
    found = negotiate([proposed], asked, offers=(limited,), order=ORDER, caller=RECEIVER)
    assert found.accepted[1].transfer_syntax == EXPLICIT


@given(syntaxes)
def test_the_choice_is_offered_and_lossless_wins(offered: list[str]) -> None:
    chosen = choose_syntax(offered, None, ORDER)
    assert chosen in offered
    groups = {GROUPS.get(uid, LOSSY) for uid in offered}
    group = GROUPS.get(chosen, LOSSY)
    assert group == min(groups, key=ORDER.index)
    assert group != LOSSY or groups == {LOSSY}
    assert chosen == next(uid for uid in offered if GROUPS.get(uid, LOSSY) == group)


@given(syntaxes, st.permutations(ORDER))
def test_the_order_is_a_setting(offered: list[str], order: list[str]) -> None:
    chosen = choose_syntax(offered, None, order)
    places = [order.index(GROUPS.get(uid, LOSSY)) for uid in offered]
    assert order.index(GROUPS.get(chosen or "", LOSSY)) == min(places)


@given(st.lists(st.tuples(st.sampled_from([CT, FIND, MPPS, "1.2.3", "x"]), syntaxes), max_size=9))
def test_every_context_is_answered_once(proposals: list[tuple[str, list[str]]]) -> None:
    proposed = [
        Proposed(context_id=2 * place + 1, abstract_syntax=uid, transfer_syntaxes=tuple(offered))
        for place, (uid, offered) in enumerate(proposals)
    ]
    agreement = negotiate(proposed, {}, offers=(STORAGE, QUERY), order=ORDER)
    assert [each.context_id for each in agreement.contexts] == [p.context_id for p in proposed]
    for asked, agreed in zip(proposed, agreement.contexts, strict=True):
        assert agreed.transfer_syntax in asked.transfer_syntaxes
        assert agreed.result in (0, 3, 4)
        assert agreed.as_scp == (agreed.result != 3)


@pytest.mark.parametrize(
    ("uid", "offered", "result", "syntax"),
    [
        (CT, (JPEG_LOSSY, J2K, IMPLICIT), 0, J2K),
        (CT, (IMPLICIT, EXPLICIT), 0, EXPLICIT),
        (CT, (BIG, IMPLICIT), 0, IMPLICIT),
        (CT, (RLE, J2K), 0, RLE),
        (CT, ("1.2.3.4.5",), 0, "1.2.3.4.5"),
        (FIND, (J2K, IMPLICIT), 0, IMPLICIT),
        (FIND, (J2K,), 4, J2K),
        (MPPS, (IMPLICIT,), 3, IMPLICIT),
        (PRINT, (IMPLICIT,), 3, IMPLICIT),
        ("1.2.840.113619.4.26", (IMPLICIT,), 0, IMPLICIT),
        ("1.2.840.10008.5.1.4.1.1.99999", (IMPLICIT,), 0, IMPLICIT),
    ],
)
def test_results(uid: str, offered: tuple[str, ...], result: int, syntax: str) -> None:
    (agreed,) = one(uid, *offered, offers=(STORAGE, QUERY)).contexts
    assert (agreed.result, agreed.transfer_syntax) == (result, syntax)


@pytest.mark.parametrize("uid", [MPPS, PRINT, ECHO, FIND, "1.2.840.10008.5.1.4.1.1.200.4", "abc"])
def test_other_services_are_never_taken_for_storage(uid: str) -> None:
    assert not may_be_storage(uid)


@pytest.mark.parametrize(
    ("offers", "asked", "answer"),
    [
        ((STORAGE,), None, (True, False, None)),
        ((STORAGE,), Roles(scu=True, scp=True), (True, False, Roles(scu=True, scp=False))),
        ((STORAGE, GET), Roles(scu=False, scp=True), (False, True, Roles(scu=False, scp=True))),
        ((STORAGE, GET), Roles(scu=True, scp=True), (True, True, Roles(scu=True, scp=True))),
        ((STORAGE, GET), Roles(scu=False, scp=False), (True, False, Roles(scu=True, scp=False))),
    ],
)
def test_roles(
    offers: tuple[Offer, ...], asked: Roles | None, answer: tuple[bool, bool, Roles | None]
) -> None:
    agreement = one(CT, EXPLICIT, roles=asked, offers=offers)
    (agreed,) = agreement.contexts
    assert (agreed.as_scp, agreed.as_scu, agreement.roles.get(CT)) == answer


def test_a_role_that_leaves_nothing_is_rejected() -> None:
    agreement = one(CT, EXPLICIT, roles=Roles(scu=False, scp=True), offers=(STORAGE,))
    assert agreement.contexts[0].result == 1
    assert agreement.accepted == {}


def test_extended_negotiation_is_the_offers() -> None:
    asked = {FIND: b"\x01\x02\x03", CT: b"\x01"}
    assert answer_extended(asked, frozenset({FIND, CT}), (STORAGE, QUERY)) == {
        FIND: b"\x01\x00\x01"
    }
    assert answer_extended(asked, frozenset({CT}), (STORAGE, QUERY)) == {}
