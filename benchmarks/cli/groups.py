"""Commands of two words: `token …` and `cache …`."""

from typing import Annotated

import typer

from .options import Database, Home

token = typer.Typer(help="Tokens for a server: create, list, revoke.", no_args_is_help=True)


@token.command("create")
def token_create(
    name: Annotated[str, typer.Argument(help="Whose it is.")],
    scope: Annotated[str, typer.Option(help="submit, or maintain, which may submit too.")] = "submit",
    expires: Annotated[
        str | None, typer.Option(metavar="AGE", help="Good for so long: 90d, 12h (else for ever).")
    ] = None,
    home: Home = None,
    database: Database = None,
) -> None:
    """A new token, shown this once."""
    from . import serving

    serving.create(name, scope, expires, database, home)


@token.command("list")
def token_list(
    format: Annotated[str, typer.Option(help="table, json, csv or markdown.", metavar="FORMAT")] = "table",
    home: Home = None,
    database: Database = None,
) -> None:
    """Whose tokens there are; not the tokens, which nobody keeps."""
    from . import serving

    serving.list_(format, database, home)


@token.command("revoke")
def token_revoke(
    name: Annotated[str, typer.Argument(help="Whose it is.")],
    home: Home = None,
    database: Database = None,
) -> None:
    """From now on the token opens nothing."""
    from . import serving

    serving.revoke(name, database, home)


cache = typer.Typer(help="Features that are kept: list, prune, verify.", no_args_is_help=True)


@cache.command("list")
def cache_list(
    format: Annotated[str, typer.Option(help="table, json, csv or markdown.", metavar="FORMAT")] = "table",
    home: Home = None,
) -> None:
    """What is kept, of which backbone, how much, and when it was last used."""
    from . import caching

    caching.list_(format, home)


@cache.command("prune")
def cache_prune(
    to: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Least recently used first, until 10GB are left.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="What was not used for so long: 30d, 12h.")
    ] = None,
    backbone: Annotated[str | None, typer.Option("--backbone", "-b", help="Only what is of this backbone.")] = None,
    home: Home = None,
) -> None:
    """Remove kept features, never those in use."""
    from . import caching

    caching.prune(to, older_than, backbone, home)


@cache.command("verify")
def cache_verify(
    format: Annotated[str, typer.Option(help="table, json, csv or markdown.", metavar="FORMAT")] = "table",
    home: Home = None,
) -> int:
    """Read every byte that is kept and say what is harmed."""
    from . import caching

    return caching.verify(format, home)
