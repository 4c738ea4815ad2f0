"""Commands around the server: serve, token create, token list, token revoke."""

import getpass
import logging
import socket
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ...backbones.errors import BadInput, Unavailable
from .caching import seconds_of, size_of
from .output import print_rows

if TYPE_CHECKING:
    from ...leaderboard import Store


def serve(
    host: str, port: int, upload_limit: str, reads: int, changes: int, checkers: int, database: str | None,
    home: Path | None,
) -> None:  # fmt: skip
    """`backbench serve`: until it is stopped."""
    if missing := [name for name in ("fastapi", "uvicorn") if find_spec(name) is None]:
        raise Unavailable(f"serve needs {' and '.join(missing)}: pip install 'backbench[serve]'")
    limit = size_of(upload_limit, "--upload-limit")
    listening = _listening(host, port)
    import uvicorn

    from ...leaderboard.server.app import make_app
    from ...leaderboard.server.limits import Limits
    from ...leaderboard.server.tokens import list_tokens
    from ..home import home_folder
    from ..serve import site_of

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with listening:
        limits = Limits(upload=limit, reads=reads, changes=changes, checkers=checkers)
        site = site_of(home_folder(home), database, limits)
        at = f"[{host}]" if ":" in host else host
        print(f"backbench: http://{at}:{listening.getsockname()[1]}/  (API: /docs; stop with Ctrl-C)", flush=True)
        if not any(token.state == "valid" for token in list_tokens(site.store)):
            print("nobody can submit yet: `backbench token create NAME --scope submit`", flush=True)
        config = uvicorn.Config(
            make_app(site), log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=10
        )
        uvicorn.Server(config).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens, bound before anything heavy is loaded. Raises BadInput."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(2048)
    except OSError as error:
        where = f"--host {host} --port {port}"
        raise BadInput(f"{where}: {error.strerror or error}; is another server there? Take another --port") from None
    return found


def create(name: str, scope: str, expires: str | None, database: str | None, home: Path | None) -> None:
    """`backbench token create`: prints the token, once."""
    from ...leaderboard.server.tokens import create_token

    lasts = None if expires is None else timedelta(seconds=seconds_of(expires, "--expires"))
    print(create_token(_store(home, database), name, scope, lasts, by=_me()))


def list_(format: str, database: str | None, home: Path | None) -> None:
    """`backbench token list`."""
    from ...leaderboard.server.tokens import list_tokens

    rows = [
        {"name": t.name, "scope": " ".join(t.scopes), "state": t.state, "created": t.created, "expires": t.expires}
        for t in list_tokens(_store(home, database))
    ]
    print_rows(rows, format)


def revoke(name: str, database: str | None, home: Path | None) -> None:
    """`backbench token revoke`."""
    from ...leaderboard.server.tokens import revoke_token

    revoke_token(_store(home, database), name, by=_me())
    print(f"the token {name!r} opens nothing any more")


def _store(home: Path | None, database: str | None) -> "Store":
    from ..home import home_folder, store_of

    return store_of(home_folder(home), database)


def _me() -> str:
    """Who does it, for the audit log: the user of this machine."""
    try:
        return f"{getpass.getuser()} (command line)"
    except (KeyError, OSError):  # a container may run as a number without a name
        return "command line"
