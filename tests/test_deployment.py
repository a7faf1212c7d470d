"""Images, compose file, examples and documents say what is true of the code; nothing here needs Docker."""

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import settings
from app.settings import Retention, Timers
from ml.spec import DatasetFacts, ExperimentSpec, SweepSpec, expand, resolve

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.suffix in (".yaml", ".json"))
SETTINGS = {
    *re.findall(r'"((?:SWEETSPOT_[A-Z_]+|[A-Z]+_URL))"', Path(settings.__file__).read_text()),
    *(f"SWEETSPOT_{name.upper()}_SECONDS" for name in vars(Timers())),
    *(f"SWEETSPOT_KEEP_{name.upper()}_DAYS" for name in vars(Retention())),
}
FACTS = {
    "digits": DatasetFacts(name="digits", train=1078, test=719, channels=1, image_size=16, classes=10),
    "cifar10": DatasetFacts(name="cifar10", train=50_000, test=10_000, channels=3, image_size=32, classes=10),
    "stl10": DatasetFacts(name="stl10", train=105_000, test=8_000, labelled=5_000, channels=3, image_size=96, classes=10),
    "div2k": DatasetFacts(name="div2k", layout="photos", train=540, test=360, channels=3, image_size=64, smallest_side=648),
    "moving_mnist": DatasetFacts(
        name="moving_mnist",
        layout="scenes",
        train=20_000,
        test=5_000,
        channels=3,
        image_size=64,
        frames=20,
        factors={"digit": 10, "background": 10, "position": None},
    ),
}


def interpolated(text: str) -> str:
    """`${NAME:-default}` as Compose fills it in; names without a default become `secret`."""
    return re.sub(r"\$\{\w+(?::([-?])([^}]*))?\}", lambda match: match[2] if match[1] == "-" else "secret", text)


COMPOSE: dict[str, Any] = yaml.safe_load(interpolated(COMPOSE_TEXT))
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)


def pins(name: str) -> dict[tuple[str, str], set[str]]:
    """(Package, version) to hashes, of a lock file."""
    found: dict[tuple[str, str], set[str]] = {}
    key = None
    for line in (ROOT / name).read_text().splitlines():
        if match := re.match(r"([a-z0-9.-]+)(?:\[[^]]*\])?==([^ ;]+)", line):
            key = (match[1], match[2])
            found.setdefault(key, set())
        elif match := re.match(r"\s+--hash=(\S+)", line):
            assert key is not None
            found[key].add(match[1])
    return found


def wanted(*extras: str) -> set[str]:
    """What pyproject.toml asks for."""
    requirements = [*PYPROJECT["dependencies"], *(line for extra in extras for line in PYPROJECT["optional-dependencies"][extra])]
    return {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in requirements}  # type: ignore[index]


def stages() -> dict[str, tuple[str, list[str]]]:
    """The Dockerfile's stages by name: their base, and their instructions."""
    found: dict[str, tuple[str, list[str]]] = {}
    lines: list[str] = []
    for line in DOCKERFILE.splitlines():
        if match := re.match(r"FROM (\S+) AS (\S+)", line):
            lines = []
            found[match[2]] = (match[1], lines)
        elif line and not line.startswith("#"):
            lines.append(line.strip())
    return found


def built_from(stage: str) -> Iterator[str]:
    """A stage's instructions with those of the stages it stands on and copies from."""
    base, lines = stages()[stage]
    if base in stages():
        yield from built_from(base)
    for line in lines:
        if match := re.match(r"COPY --from=(\S+)", line):
            yield from built_from(match[1])
        yield line


@pytest.mark.parametrize("lock", ["requirements-api.lock", "requirements-worker.lock"])
def test_an_image_has_the_very_packages_that_are_tested(lock: str) -> None:
    tested = pins("requirements.lock")
    for package, hashes in pins(lock).items():
        assert hashes and hashes == tested[package], package


def test_the_api_image_has_what_the_api_needs_and_nothing_of_torch() -> None:
    names = {name for name, _ in pins("requirements-api.lock")}
    assert wanted() <= names
    assert not {name for name in names if name.startswith(("nvidia", "torch", "triton"))}
    assert not (wanted("ml", "embedded", "dev") - wanted()) & names


def test_the_worker_image_trains_and_has_no_embedded_servers_and_no_tools() -> None:
    names = {name for name, _ in pins("requirements-worker.lock")}
    assert wanted("ml") <= names
    assert not (wanted("embedded", "dev") - wanted("ml")) & names


@pytest.mark.parametrize("file", ["requirements.lock", "requirements-api.lock", "requirements-worker.lock", "Dockerfile"])
def test_no_registry_is_named(file: str) -> None:
    addresses = re.findall(r"\w+://\S+", (ROOT / file).read_text())
    assert all("127.0.0.1" in address for address in addresses)


def test_what_is_installed_is_hashed_or_our_own() -> None:
    installs = re.findall(r"pip (?:--python \S+ )?install (.*?)(?:&&|$)", DOCKERFILE, re.MULTILINE)
    assert len(installs) == 5
    assert all("--require-hashes -r" in install or "--no-deps --no-index /wheels/" in install for install in installs)


def test_the_bases_are_tagged() -> None:
    bases = {base for base, _ in stages().values()} - stages().keys()
    assert bases == {"python:3.12-slim"}
    images = {service["image"] for name, service in SERVICES.items() if name not in OURS}
    assert images == {"postgres:18", "redis:8"}


def test_every_source_of_a_copy_exists_and_is_let_through() -> None:
    let_through = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    sources = [source for line in re.findall(r"^COPY (?!--from)(.*)", DOCKERFILE, re.MULTILINE) for source in line.split()[:-1]]
    assert {"app", "ml", "workers", "migrations", "requirements-api.lock", "requirements-worker.lock"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(Path(source).match(pattern) for pattern in let_through), source


@pytest.mark.parametrize("target", ["api", "worker"])
def test_an_image_runs_as_nobody_in_particular(target: str) -> None:
    instructions = list(built_from(target))
    assert "USER 10001" in instructions
    assert "STOPSIGNAL SIGTERM" in instructions


def test_the_api_says_itself_whether_it_is_ready() -> None:
    (check,) = (line for line in stages()["api"][1] if line.startswith("HEALTHCHECK"))
    assert "/readyz" in check
    assert not any(line.startswith("HEALTHCHECK") for line in stages()["worker"][1])


def commands() -> Iterator[tuple[str, list[str]]]:
    for target in ("api", "worker"):
        (line,) = (line for line in stages()[target][1] if line.startswith("CMD "))
        yield target, yaml.safe_load(line.removeprefix("CMD "))
    for name in OURS:
        if "command" in SERVICES[name]:
            yield name, SERVICES[name]["command"]


@pytest.mark.parametrize(("where", "command"), list(commands()))
def test_what_a_container_runs_is_there(where: str, command: list[str]) -> None:
    if command[:2] == ["python", "-m"]:
        spec = find_spec(command[2])
        assert spec is not None, where
        assert spec.submodule_search_locations is None or find_spec(f"{command[2]}.__main__"), where
    else:
        assert command[0] in PYPROJECT["scripts"], where
        assert f"def {command[1]}(" in (ROOT / "app/cli.py").read_text(), where


@pytest.mark.parametrize("name", OURS)
def test_settings_read_what_a_container_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [variable for variable in os.environ if variable.startswith("SWEETSPOT_")]:
        monkeypatch.delenv(variable)
    for variable, value in SERVICES[name]["environment"].items():
        monkeypatch.setenv(variable, str(value))
    found = settings.settings.__wrapped__()
    assert found.require_database_url() == "postgresql+psycopg://sweetspot:secret@postgres:5432/sweetspot"
    assert found.require_redis_url() == "redis://redis:6379/0"
    known = {*SETTINGS, "CUDA_VISIBLE_DEVICES"}
    assert SERVICES[name]["environment"].keys() <= known
    mounts = {target: (volume, mode) for volume, target, *mode in (text.split(":") for text in SERVICES[name].get("volumes", []))}
    if mounts:
        assert mounts[str(found.artifacts_dir)] == ("artifacts", [])
    if name != "reconciler":  # it tidies artifacts alone
        assert not mounts or mounts[str(found.datasets_dir)] == ("datasets", ["ro"] if name == "api" else [])


def test_every_volume_is_declared_and_used() -> None:
    used = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert used == COMPOSE["volumes"].keys() == {"artifacts", "datasets", "postgres"}


def test_redis_never_drops_a_ring() -> None:
    command = SERVICES["redis"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"


def test_only_the_api_is_reached_from_outside_and_only_from_this_machine() -> None:
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "api": ["127.0.0.1:8000:8000"]
    }


def test_there_is_no_password_but_the_users() -> None:
    assert "${POSTGRES_PASSWORD:?" in COMPOSE_TEXT
    assert not re.search(r"PASSWORD(:-|: *\w|=\w)", COMPOSE_TEXT)


@pytest.mark.parametrize("name", sorted(SERVICES.keys()))
def test_a_service_starts_after_what_it_needs_and_starts_again(name: str) -> None:
    service = SERVICES[name]
    for other, condition in service.get("depends_on", {}).items():
        expected = "service_completed_successfully" if other == "migrate" else "service_healthy"
        assert condition == {"condition": expected}
        assert other == "migrate" or "test" in SERVICES[other]["healthcheck"]
    assert service["restart"] == ("no" if name == "migrate" else "unless-stopped")
    if name in OURS:
        assert service["init"] is True
        assert "migrate" in service["depends_on"] or name == "migrate"


@pytest.mark.parametrize("name", ["reconciler", "migrate"])
def test_what_serves_nothing_is_not_asked_whether_it_is_ready(name: str) -> None:
    assert SERVICES[name]["build"]["target"] == "api"
    assert SERVICES[name]["healthcheck"] == {"disable": True}


@pytest.mark.parametrize("name", ["worker", "worker-gpu"])
def test_a_stopped_worker_has_the_time_to_give_its_experiment_back(name: str) -> None:
    timers = Timers()
    assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > timers.kill_grace + timers.self_fence


def test_a_gpu_is_asked_for_by_the_gpu_profile_alone() -> None:
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["worker-gpu"]
    (device,) = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert SERVICES["worker"]["environment"]["CUDA_VISIBLE_DEVICES"] == ""
    assert SERVICES["worker"]["deploy"]["replicas"] == 2


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_can_be_run(path: Path) -> None:
    asked = yaml.safe_load(path.read_text())
    specs = [spec for _, spec in expand(SweepSpec.model_validate(asked))] if "axis" in asked else [ExperimentSpec(**asked)]
    for spec in specs:
        resolve(spec, lambda dataset, _: FACTS[dataset.name])


def test_the_specs_of_the_documents_can_be_asked_for() -> None:
    blocks = re.findall(r"```json\n(.*?)```", (ROOT / "docs/views.md").read_text(), re.DOTALL)
    for document in map(json.loads, blocks):
        spec = ExperimentSpec.model_validate(
            document if "views" in document else {"dataset": {"name": "digits"}, "views": document}
        )
        assert spec.model_fields_set >= {"dataset", "views"}
    assert len(blocks) == 4


@pytest.mark.parametrize("path", ["examples/curl.sh", "README.md"])
def test_the_spec_that_curl_sends_can_be_run(path: str) -> None:
    match = re.search(r"--json '(\{.*?\})'", (ROOT / path).read_text(), re.DOTALL)
    assert match is not None
    assert len(list(expand(SweepSpec.model_validate_json(match[1])))) == 16


@pytest.mark.parametrize("name", ["curl.sh", "estimate-mi.sh"])
def test_the_curl_sessions_are_shell_scripts(name: str) -> None:
    subprocess.run(["sh", "-n", ROOT / "examples" / name], check=True)


def test_the_documents_name_every_setting_and_its_default() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", (ROOT / "docs/deploy.md").read_text(), re.MULTILINE)
    assert {name for name, _ in rows} == SETTINGS
    assert dict(rows)["SWEETSPOT_LARGEST_UPLOAD"] == str(settings.LARGEST_UPLOAD)
    told = {name: float(default) for name, default in rows if name.endswith("_SECONDS")}
    assert told == {f"SWEETSPOT_{name.upper()}_SECONDS": value for name, value in vars(Timers()).items()}
    told = {name: float(default) for name, default in rows if name.endswith("_DAYS")}
    assert told == {f"SWEETSPOT_KEEP_{name.upper()}_DAYS": value for name, value in vars(Retention()).items()}


@pytest.mark.parametrize(
    "path", ["README.md", "docs/architecture.md", "docs/science.md", "docs/views.md", "docs/methods.md", "docs/deploy.md"]
)
def test_the_documents_name_files_and_targets_that_exist(path: str) -> None:
    text = (ROOT / path).read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / path).parent.joinpath(link).exists(), link
    for module in re.findall(r"`(?:ml|app|workers|examples)/[\w/.]+`", text):
        assert (ROOT / module.strip("`")).exists(), module
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE)) <= targets
