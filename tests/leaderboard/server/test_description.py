"""The API does what its OpenAPI description says, whatever is asked, by whomever: schemathesis over a server."""

from contextlib import suppress

import pytest
from backbench.leaderboard import Store
from backbench.leaderboard.server.tokens import create_token
from backbench.leaderboard.tables import checks, moment
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from processes import started

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
FEW, MANY = 4, 150  # requests of each kind to each route


@schemathesis.serializer("application/zip")
def as_it_is(_, value):
    """Bundles are bytes: whatever they are made to be is sent."""
    return value if isinstance(value, bytes) else str(value).encode()


@pytest.fixture(scope="module")
def running(tmp_path_factory, invented):
    """A server over a store with something of everything; and what callers send along."""
    home = tmp_path_factory.mktemp("home")
    store = Store(home / "leaderboard.db")
    mine = invented(4)
    store.add_all(mine)
    store.withdraw(mine[-1].id, "for a test", "tests")
    with store.begin() as connection:
        row = {"result_id": mine[0].id, "submission_id": None, "state": "queued", "queued": moment(), "detail": {}}
        connection.execute(checks.insert().values(row))
    tokens = [create_token(store, who, who, None, by="tests") for who in ("submit", "maintain")]
    with started(home, str(home / "leaderboard.db")) as server:
        # An empty header keeps schemathesis from making one up.
        yield server, [{"Authorization": f"Bearer {secret}" if secret else ""} for secret in ("", *tokens)]


@pytest.fixture(scope="module")
def description(running):
    """What the server says of itself."""
    # Tokens are sent by `ask`, not made up.
    config = schemathesis.Config.from_dict({"generation": {"with-security-parameters": False}})
    return schemathesis.openapi.from_url(f"{running[0].url}/api/v1/openapi.json", config=config)


def ask(description, running, examples: int) -> set[str]:
    """Asks every route, rightly and wrongly: without a token, with one to submit, with one to maintain."""
    from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

    server, callers = running
    asked = set()
    for operation in (found.ok() for found in description.get_all_operations()):
        for mode in schemathesis.GenerationMode:
            # A name that nobody has is right by its form, and yet is refused; 0.0 is wrong by its form, and yet is 0.
            @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy(generation_mode=mode))
            def holds(case):
                for headers in callers:
                    case.call_and_validate(
                        headers=headers, excluded_checks=[positive_data_acceptance, negative_data_rejection]
                    )
                    assert server.process.poll() is None

            with suppress(Unsatisfiable if mode.is_negative else ()):  # a route that asks for nothing
                holds()
                asked.add(operation.label)
    return asked


def test_no_question_breaks_it(description, running):
    assert len(ask(description, running, FEW)) == 14


@pytest.mark.slow
def test_no_question_of_many_breaks_it(description, running):
    assert len(ask(description, running, MANY)) == 14
