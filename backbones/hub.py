"""Weights from far away: told apart from mistakes, quickly and quietly."""

import logging
import threading
import time
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from urllib.error import HTTPError, URLError

from .errors import Unavailable

PATIENCE = 3.0  # seconds until a host counts as out of reach; the hub's client alone retries for 23 s a file
INSTEAD = "give `checkpoint:` a local file, or say `pretrained: false` for random weights"


@contextmanager
def weights_from(host: str, name: str, needed: bool = True, instead: str = INSTEAD) -> Iterator[None]:
    """Around a library call that may download for `name` from `host`, if `needed`: Unavailable tells what was refused.

    With the hub out of reach its cache is used alone, without the client's retries. Nothing is written to the terminal.
    `instead` is what somebody without a network can do.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    before = constants.HF_HUB_OFFLINE
    try:
        with _quiet():
            # The setting is read at every request; there is no argument for it that all libraries hand through.
            constants.HF_HUB_OFFLINE = before or (needed and not reachable(host))
            yield
    except Exception as error:
        causes = _causes(error)
        refusal = next((cause for cause in causes if isinstance(cause, HfHubHTTPError)), None)
        if refusal is not None:
            reason = str(refusal).strip().splitlines()[-1]
            raise Unavailable(
                f"{name}: {host} answers: {reason} Check the name, or log in if it asks for that"
            ) from None
        if not is_network(error):
            raise
        raise Unavailable(f"{name}: weights cannot be downloaded (no network to {host}?); {instead}") from None
    finally:
        constants.HF_HUB_OFFLINE = before


def reachable(host: str) -> bool:
    """Whether `host` answers within PATIENCE seconds, asked at most once a minute; proxies are respected."""
    return _answers(host, int(time.monotonic() // 60))


@lru_cache(maxsize=16)
def _answers(host: str, minute: int) -> bool:
    answers = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(f"https://{host}", method="HEAD"), timeout=PATIENCE).close()
            answers.append(True)
        except HTTPError:
            answers.append(True)  # an answer, if not a friendly one
        except (OSError, ValueError):
            pass

    # In a thread, as neither the name's lookup nor a host with many addresses keeps to the timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return bool(answers)


def is_network(error: BaseException) -> bool:
    """Whether an error, or what caused it, is for want of a network or of an answer."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    kinds = (URLError, ConnectionError, TimeoutError, LocalEntryNotFoundError, HfHubHTTPError)
    return any(isinstance(cause, kinds) for cause in _causes(error))


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, no library logs, warns or draws a progress bar."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    bars, level = not are_progress_bars_disabled(), logging.root.manager.disable
    disable_progress_bars()
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        if bars:
            enable_progress_bars()
