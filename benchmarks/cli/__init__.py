"""The command line: `backbench …`. Nothing heavy is imported before a command needs it."""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 well, 1 something failed on the way, 2 the input was wrong, 130 interrupted."""
    from ..launch import as_one

    words = list(sys.argv[1:] if argv is None else argv)
    sys.exit(as_one(lambda: code(words)))


def code(argv: list[str]) -> int:
    """Run one command; its exit code. Errors that a person can mend are one line on stderr; `--debug` shows all."""
    from typer import Abort
    from typer.exceptions import TyperException

    from ...backbones.errors import BadInput, NotApplicable, Unavailable
    from ..launch import launched, together
    from .app import app

    debug = "--debug" in argv
    argv = [word for word in argv if word != "--debug"]
    try:
        if launched() and argv[:1] != ["run"]:
            raise BadInput("several processes are of use to `backbench run` alone; start this one without a launcher")
        return together(lambda: app(args=argv, prog_name="backbench", standalone_mode=False)) or 0
    except TyperException as error:  # a mistyped command or option
        if error.format_message():
            said = error.format_message().replace("Value error, ", "")  # pydantic's, where an option has a type of ours
            print(f"backbench: {said} See `{_help(argv)}`.", file=sys.stderr)
        return error.exit_code
    except (BadInput, Unavailable, NotApplicable) as error:
        if debug:
            raise
        print(f"backbench: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadInput) else 1
    except (KeyboardInterrupt, Abort):
        print("backbench: stopped; the same command goes on where it stood", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `backbench list … | head`
        sys.stderr.close()
        return 0
    except Exception as error:
        if debug:
            raise
        first_line = (str(error).strip() or "no message").splitlines()[0]
        print(f"backbench: unexpected {type(error).__name__}: {first_line} (--debug shows where)", file=sys.stderr)
        return 1


def _help(argv: list[str]) -> str:
    from .app import app

    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    return f"backbench {argv[0]} --help" if argv and argv[0] in names else "backbench --help"
