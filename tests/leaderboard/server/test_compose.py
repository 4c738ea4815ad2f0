"""docker/compose.yaml and the image it builds, as files: no root, no known password, nothing lost, all watched."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

DOCKER = Path(__file__).parents[3] / "docker"


@pytest.fixture(scope="module")
def compose():
    """The file, and its text."""
    text = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text), text


def test_there_is_no_password_until_somebody_makes_one(compose):
    services, text = compose[0]["services"], compose[1]
    given = [services["server"]["environment"]["PGPASSWORD"], services["database"]["environment"]["POSTGRES_PASSWORD"]]
    for value in given:
        assert re.fullmatch(r"\$\{POSTGRES_PASSWORD:\?.+\}", value)  # refused where it is unset or empty
    assert not re.search(r"://[^@\s]*:[^@\s]*@", text)  # none in a URL
    for ignored in (".gitignore", ".dockerignore"):
        assert "docker/.env" in (DOCKER.parent / ignored).read_text().splitlines()


def test_state_outlives_containers_and_only_this_machine_is_served(compose):
    found = compose[0]
    mounts = [mount.partition(":") for service in found["services"].values() for mount in service["volumes"]]
    assert {name for name, _, _ in mounts} == set(found["volumes"])
    assert {at for _, _, at in mounts} == {"/data", "/var/lib/postgresql/data"}
    assert all(port.startswith("127.0.0.1:") for port in found["services"]["server"]["ports"])
    assert "ports" not in found["services"]["database"]


def test_nobody_is_root_and_everybody_is_watched(compose):
    services = compose[0]["services"]
    stages = (DOCKER / "Dockerfile").read_text(encoding="utf-8").split("\nFROM ")
    server = next(stage for stage in stages if stage.startswith(f"core AS {services['server']['build']['target']}\n"))
    assert "\nUSER backbench\n" in server
    assert services["database"]["user"] == "postgres"
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["healthcheck"]["test"][0] == "CMD"
    assert services["server"]["depends_on"] == {"database": {"condition": "service_healthy"}}


def test_the_server_is_started_as_the_command_line_has_it(compose):
    from backbench.benchmarks.cli.app import app
    from typer.main import get_command

    words = compose[0]["services"]["server"]["command"]
    asked = get_command(app).commands["serve"].make_context("serve", list(words[1:]))
    assert asked.params["host"] == "0.0.0.0"
    assert asked.params["database"].startswith("postgresql://backbench@database:5432/")


def test_docker_reads_it_too():
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("no docker compose here")
    compose = [docker, "compose", "-f", DOCKER / "compose.yaml", "config", "--quiet"]
    assert subprocess.run(compose, capture_output=True, env={"POSTGRES_PASSWORD": "x"}).returncode == 0
    refused = subprocess.run(compose, capture_output=True, text=True, env={})
    assert (refused.returncode != 0, "POSTGRES_PASSWORD" in refused.stderr) == (True, True)
