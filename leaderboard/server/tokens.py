"""Who may change something: tokens, of which only the sha256 is kept."""

import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Literal, get_args

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from ...backbones.errors import BadInput, did_you_mean, unknown
from ..store import Store
from ..tables import moment, tokens

Scope = Literal["submit", "maintain"]
PREFIX = "backbench_"  # by which a scanner for leaked secrets knows it


@dataclass(frozen=True)
class Token:
    """A token as the store knows it. Times are UTC in ISO 8601; whoever may `maintain` may `submit` too."""

    name: str
    scopes: tuple[str, ...]
    created: str
    expires: str | None
    revoked: str | None

    @property
    def state(self) -> str:
        """valid, expired or revoked."""
        if self.revoked:
            return "revoked"
        return "expired" if self.expires and self.expires <= moment() else "valid"

    def allows(self, scope: Scope) -> bool:
        """Whether it may do what `scope` is for."""
        return scope in self.scopes or "maintain" in self.scopes


def create_token(store: Store, name: str, scope: str, lasts: timedelta | None, by: str) -> str:
    """A new token: the one time that it is seen. `lasts`: None is for ever. Raises BadInput."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,99}", name):
        raise BadInput(f"token {name!r}: name it with 1 to 100 letters, digits and . _ @ - or spaces")
    if scope not in get_args(Scope):
        raise unknown("scope", scope, get_args(Scope), where="--scope")
    secret = PREFIX + secrets.token_urlsafe(32)
    now = datetime.now(UTC)
    expires = moment(now + lasts) if lasts is not None else None
    row = {"name": name, "sha256": _digest(secret), "scopes": scope, "created": moment(now), "expires": expires}
    try:
        with store.engine.begin() as connection:
            connection.execute(tokens.insert().values(row))
    except IntegrityError:
        raise BadInput(f"there is a token {name!r} already, perhaps revoked; take another name") from None
    store.log(by, "token created", name, {"scope": scope, "expires": expires})
    return secret


def list_tokens(store: Store) -> list[Token]:
    """All that were ever made, the oldest first."""
    with store.engine.connect() as connection:
        rows = connection.execute(select(tokens).order_by(tokens.c.created, tokens.c.name))
        return [_token(row) for row in rows]


def revoke_token(store: Store, name: str, by: str) -> None:
    """From now on it opens nothing. Raises BadInput for one that is not there."""
    here, mine = tokens.c.name == name, tokens.c.revoked.is_(None)
    with store.engine.begin() as connection:
        done = connection.execute(update(tokens).where(here, mine).values(revoked=moment())).rowcount
        known = list(connection.scalars(select(tokens.c.name)))
    if name not in known:
        raise BadInput(f"there is no token {name!r}{did_you_mean(name, known) or '; see `backbench token list`'}")
    if done:
        store.log(by, "token revoked", name, {})


def find_token(store: Store, secret: str) -> Token | None:
    """The token that a caller showed, whatever its state; compared with every one there is, in constant time."""
    shown, found = _digest(secret), None
    with store.engine.connect() as connection:
        for row in connection.execute(select(tokens)):
            if hmac.compare_digest(row.sha256, shown):
                found = _token(row)
    return found


def _token(row) -> Token:
    return Token(row.name, tuple(row.scopes.split()), row.created, row.expires, row.revoked)


def _digest(secret: str) -> str:
    # Not slow on purpose, as for passwords: nobody guesses 256 random bits.
    return sha256(secret.encode()).hexdigest()
