"""JSON Web Tokens: signed by a key of ours, in time, by whom and for whom it was configured; nothing else."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from config.settings import Legitimacy, Settings
from pacs.app.gate import contract_gate
from pacs.core.caller import Refusal
from pacs.core.errors import AdmissionRefused, SettingsInvalid
from pacs.services.gate.tokens import MOST_TOKEN_BYTES, WebTokens
from tests.association_fakes import FakeAudit
from tests.legitimacy import Book, Counted, candidate, contract, device, gate_by, user

RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
SHORT = rsa.generate_private_key(public_exponent=65_537, key_size=1_024)
CURVE = ec.generate_private_key(ec.SECP256R1())
EDWARDS = ed25519.Ed25519PrivateKey.generate()
OTHER = ed25519.Ed25519PrivateKey.generate()


def pem(key: Any) -> bytes:
    made: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return made


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name, key in {"rsa": RSA, "short": SHORT, "ec": CURVE, "ed": EDWARDS}.items():
        (tmp_path / f"{name}.pem").write_bytes(pem(key))
    (tmp_path / "junk.pem").write_text("-----BEGIN PUBLIC KEY-----\nno\n")
    return tmp_path


STRICT = Legitimacy(jwt_keys=("rsa.pem", "ec.pem", "ed.pem"), jwt_issuer="idp", jwt_audience="pacs")


def claims(**more: Any) -> dict[str, Any]:
    now = int(time.time())
    made = {"sub": "ann", "iss": "idp", "aud": "pacs", "exp": now + 600, "iat": now, **more}
    return {key: one for key, one in made.items() if one is not None}


def token(key: Any = EDWARDS, algorithm: str = "EdDSA", **more: Any) -> bytes:
    return jwt.encode(claims(**more), key, algorithm=algorithm).encode()


@pytest.mark.parametrize(
    ("key", "algorithm"), [(RSA, "RS256"), (RSA, "PS256"), (CURVE, "ES256"), (EDWARDS, "EdDSA")]
)
def test_each_kind_of_key_verifies_what_it_signed(home: Path, key: Any, algorithm: str) -> None:
    assert WebTokens(STRICT, home).user_of(token(key, algorithm)) == "ann"


def past(seconds: int) -> int:
    return int(time.time()) - seconds


@pytest.mark.parametrize(
    "more",
    [
        {"exp": past(31)},
        {"exp": None},
        {"nbf": past(-86_400)},  # a day ahead: these are made when tests are collected
        {"iss": "another"},
        {"iss": None},
        {"aud": "another"},
        {"aud": None},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": ["ann"]},
    ],
)
def test_a_token_is_valid_in_every_respect_or_not_at_all(
    home: Path, more: Mapping[str, Any]
) -> None:
    assert WebTokens(STRICT, home).user_of(token(**more)) is None


def test_clocks_may_differ_a_little(home: Path) -> None:
    assert WebTokens(STRICT, home).user_of(token(exp=past(10))) == "ann"


def test_others_keys_and_others_algorithms_are_not_ours(home: Path) -> None:
    tokens = WebTokens(STRICT, home)
    unsigned = jwt.encode(claims(), None, algorithm="none").encode()
    head, body, _ = token().split(b".")
    forged = jwt.api_jws.PyJWS().encode(
        b"{}", pem(RSA)[30:90], algorithm="HS256"
    )  # what confuses verifiers that take a public key for a shared one
    for one in (
        token(OTHER),
        token(RSA, "RS384"),  # not among the allowed
        unsigned,
        head + b"." + body + b".",
        forged.encode(),
        b"",
        b"a.b.c",
        b"\xff" * 40,
        token(note="x" * MOST_TOKEN_BYTES),
    ):
        assert tokens.user_of(one) is None


def test_issuer_and_audience_may_be_left_open_and_the_claim_be_another(home: Path) -> None:
    bare = Legitimacy(jwt_keys=("ed.pem",))
    assert WebTokens(bare, home).user_of(token(iss=None, aud=None)) == "ann"
    assert WebTokens(bare, home).user_of(token()) is None  # it is for somebody in particular
    named = msgspec.structs.replace(bare, jwt_user_claim="upn")
    assert WebTokens(named, home).user_of(token(aud=None, upn="ann@alpha")) == "ann@alpha"


@pytest.mark.parametrize("name", ["missing.pem", "junk.pem", "short.pem"])
def test_a_key_that_is_none_is_said_at_start(home: Path, name: str) -> None:
    with pytest.raises(SettingsInvalid, match=name):
        WebTokens(Legitimacy(jwt_keys=(name,)), home)
    with pytest.raises(SettingsInvalid, match=r"rsa\.pem"):
        WebTokens(Legitimacy(jwt_keys=("rsa.pem",), jwt_algorithms=("ES256",)), home)


def test_a_token_proves_a_user_and_is_counted_by_address_where_it_does_not(home: Path) -> None:
    failures = Counted()
    book = Book(contract(), user("ann", passcode=""))
    gate = gate_by(book, tokens=WebTokens(STRICT, home), failures=failures)
    presented = {"ae_title": "LAPTOP", "user_identity_type": 5}
    caller = gate.admit(candidate(user_identity=token(), **presented))
    assert (caller.user, caller.subscriber, caller.identity_response) == ("ann", "alpha", token())
    for wrong in (token(OTHER), token(sub="nobody")):
        with pytest.raises(AdmissionRefused) as raised:
            gate.admit(candidate(user_identity=wrong, **presented))
        assert raised.value.refusal is Refusal.IDENTITY
        assert wrong.decode() not in str(raised.value)
    assert failures.noted == ["address 10.0.0.1"] * 2


def test_the_archive_s_gate_reads_the_keys_from_its_home(home: Path) -> None:
    book = Book(contract(), user("ann", passcode=""), device())
    gate = contract_gate(home, Settings(legitimacy=STRICT), snapshots=book, audit=FakeAudit())
    asking = candidate("LAPTOP", user_identity_type=5, user_identity=token())
    assert gate.admit(asking).user == "ann"
    without = contract_gate(home, Settings(), snapshots=book, audit=FakeAudit())
    with pytest.raises(AdmissionRefused):
        without.admit(asking)
