"""JSON Web Tokens (RFC 7519) verified against configured public keys. PS3.7 Annex D.3.3.7, type 5.

Owns which tokens are taken: signed by one of our keys with an algorithm that is allowed and
fits the key, in time, by the issuer and for the audience configured. Keys that both sides
share are not taken: who can verify with one can also issue.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate

from config.settings import Legitimacy
from pacs.core.errors import SettingsInvalid

LOGGER = logging.getLogger("pacs.gate")

MOST_TOKEN_BYTES: Final = 16_384
LEAST_RSA_BITS: Final = 2_048
_PEM_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_CURVES: Final[Mapping[str, str]] = {
    "secp256r1": "ES256",
    "secp384r1": "ES384",
    "secp521r1": "ES512",
}
_OF_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})

PublicKey = (
    rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Key:
    """A public key and the allowed algorithms that it is for."""

    public: PublicKey
    algorithms: tuple[str, ...]


class WebTokens:
    """``pacs.services.gate.identities.Tokens`` by key files, read once."""

    def __init__(self, settings: Legitimacy, home: Path) -> None:
        self._settings = settings
        self._keys = tuple(
            _read(home / name, settings.jwt_algorithms) for name in settings.jwt_keys
        )

    def user_of(self, token: bytes) -> str | None:
        """The user a token was issued for; ``None`` unless it is valid in every respect."""
        if len(token) > MOST_TOKEN_BYTES:
            return None
        for key in self._keys:
            claims = self._claims(token, key)
            if claims is not None:
                name = claims.get(self._settings.jwt_user_claim)
                return name if isinstance(name, str) and name else None
        return None

    def _claims(self, token: bytes, key: _Key) -> Mapping[str, object] | None:
        settings = self._settings
        try:
            claims: Mapping[str, object] = jwt.decode(
                token,
                key.public,
                algorithms=list(key.algorithms),
                issuer=settings.jwt_issuer or None,
                audience=settings.jwt_audience or None,
                leeway=settings.jwt_leeway_s,
                options={"require": ["exp", settings.jwt_user_claim]},
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as failure:
            LOGGER.debug("token-refused kind=%s", type(failure).__name__)
            return None
        return claims


def _read(path: Path, allowed: Sequence[str]) -> _Key:
    """Read a public key, or that of a certificate. Raises ``SettingsInvalid``."""
    where = f"legitimacy.jwt_keys {path}"
    try:
        pem = path.read_bytes()
        certified = _PEM_CERTIFICATE in pem
        public: object = (
            load_pem_x509_certificate(pem).public_key() if certified else load_pem_public_key(pem)
        )
    except OSError as error:
        raise SettingsInvalid(f"{where}: {error.strerror}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingsInvalid(f"{where}: no public key in PEM form") from error
    fitting = _fitting(public)
    algorithms = tuple(one for one in allowed if one in fitting)
    if not algorithms or not isinstance(public, PublicKey):
        raise SettingsInvalid(f"{where}: no algorithm of legitimacy.jwt_algorithms is for this key")
    return _Key(public=public, algorithms=algorithms)


def _fitting(public: object) -> frozenset[str]:
    if isinstance(public, rsa.RSAPublicKey):
        return _OF_RSA if public.key_size >= LEAST_RSA_BITS else frozenset()
    if isinstance(public, ec.EllipticCurvePublicKey):
        return frozenset({_CURVES.get(public.curve.name, "")})
    if isinstance(public, (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)):
        return frozenset({"EdDSA"})
    return frozenset()
