"""Who is calling: the token of a request, its scope, and how often it may change something."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from ..store import Store
from .headers import address
from .limits import RateLimit
from .problems import Refused
from .tokens import Scope, Token, find_token

bearer = HTTPBearer(auto_error=False, description="A token, as `backbench token create` prints it.")
Shown = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


class Gate:
    """Opens to a token of a scope; `Depends(gate.submit)` and `Depends(gate.maintain)` give the token."""

    def __init__(self, store: Store, changes: RateLimit):
        self._store, self._changes = store, changes

    def submit(self, request: Request, shown: Shown) -> Token:
        """The caller's token, if it may submit. Raises Refused."""
        return self._opened(request, shown, "submit")

    def maintain(self, request: Request, shown: Shown) -> Token:
        """The caller's token, if it may maintain. Raises Refused."""
        return self._opened(request, shown, "maintain")

    def _opened(self, request: Request, shown: HTTPAuthorizationCredentials | None, scope: Scope) -> Token:
        # By address until the token is known to be good, so that nobody can try many.
        self._count(f"address {address(request.scope)}")
        if shown is None:
            raise Refused(401, "this needs a token: send `Authorization: Bearer TOKEN`", "header.authorization")
        token = find_token(self._store, shown.credentials)
        if token is None or token.state != "valid":
            state = "unknown" if token is None else token.state
            raise Refused(401, f"the token is {state}; ask the board's maintainers for one", "header.authorization")
        if not token.allows(scope):
            raise Refused(403, f"the token {token.name!r} is for {', '.join(token.scopes)}, this needs {scope}")
        if request.method != "GET":
            self._count(f"token {token.name}")
        return token

    def _count(self, caller: str) -> None:
        if seconds := self._changes.wait(caller):
            raise Refused(429, "too many requests that need a token", after=seconds)
