"""Weights out of reach: soon, in one line, and quietly."""

import logging
import time
import warnings
from urllib.error import HTTPError, URLError

import httpx2 as httpx
import pytest
from backbench.backbones import Unavailable, hub
from backbench.backbones.hub import is_network, reachable, weights_from
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError


@pytest.fixture(autouse=True)
def fresh():
    hub._answers.cache_clear()
    yield
    hub._answers.cache_clear()


def failing(error, cause=None):
    """A library's call that fails with `error` inside `weights_from`."""
    with weights_from("far", "net"):
        raise error from cause


def test_a_silent_host_is_given_up_soon(monkeypatch):
    monkeypatch.setattr(hub, "PATIENCE", 0.2)

    def urlopen(*_, **__):
        time.sleep(1)
        raise URLError("at last")

    monkeypatch.setattr(hub.urllib.request, "urlopen", urlopen)
    start = time.monotonic()
    assert not reachable("silent.invalid")
    assert not reachable("silent.invalid")  # not asked again
    assert time.monotonic() - start < 0.9


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (HTTPError("https://x", 405, "no HEAD here", {}, None), True),
        (URLError("no route"), False),
        (TimeoutError(), False),
    ],
)
def test_reachable(monkeypatch, answer, expected):
    def urlopen(*_, **__):
        raise answer

    monkeypatch.setattr(hub.urllib.request, "urlopen", urlopen)
    assert reachable("x.invalid") is expected


def test_causes_are_looked_through():
    def wrapped(error):
        try:
            try:
                raise error
            except Exception as cause:
                raise RuntimeError("the library's own words") from cause
        except RuntimeError as outer:
            return outer

    assert is_network(wrapped(URLError("no route")))
    assert is_network(wrapped(LocalEntryNotFoundError("not in the cache")))
    assert is_network(wrapped(ConnectionResetError()))
    assert not is_network(wrapped(ValueError("a bug")))


def test_out_of_reach_the_cache_is_used_alone_and_the_setting_put_back(monkeypatch):
    monkeypatch.setattr(hub, "reachable", lambda host: False)
    with pytest.raises(Unavailable, match=r"^net: weights cannot .*no network to far.*`pretrained: false`"):
        failing(URLError("no route"))
    assert not constants.HF_HUB_OFFLINE
    with weights_from("far", "net"):
        assert constants.HF_HUB_OFFLINE
    with weights_from("far", "net", needed=False):
        assert not constants.HF_HUB_OFFLINE


def test_a_refusal_is_passed_on(monkeypatch):
    monkeypatch.setattr(hub, "reachable", lambda host: True)
    response = httpx.Response(404, request=httpx.Request("GET", "https://far/x"))
    refusal = RepositoryNotFoundError("no such repository", response=response)
    with pytest.raises(Unavailable, match=r"^net: far answers: .*no such repository.* Check the name"):
        failing(OSError("wrapped"), refusal)


def test_other_errors_pass(monkeypatch):
    monkeypatch.setattr(hub, "reachable", lambda host: True)
    with pytest.raises(ValueError, match="a bug"):
        failing(ValueError("a bug"))


def test_nothing_is_said(capfd):
    with weights_from("far", "net", needed=False):
        logging.getLogger("some.library").error("loud")
        warnings.warn("loud", stacklevel=1)
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET
