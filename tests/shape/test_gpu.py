"""docs/gpu.md and its examples: units, compose files and page agree, and the stack has the permissions it needs.

These tests use no Docker, GPU or AWS.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from aiserver.operations import OPERATIONS
from aiserver.providers.adapters.openai.request import MODELS_PATH
from aiserver.providers.catalogue import CATALOGUE
from aiserver.providers.provider import Provider
from local.template import REPOSITORY, read_yaml
from tests.stack import TEMPLATE

PAGE = (REPOSITORY / "docs" / "gpu.md").read_text()
FILES = REPOSITORY / "docs" / "examples" / "gpu"
CADDYFILE = (FILES / "Caddyfile").read_text()
ENGINES = ["vllm", "llama-cpp"]
SLOTS = {"vllm": "--max-num-seqs", "llama-cpp": "--parallel"}
NAME = {"vllm": "--served-model-name", "llama-cpp": "--alias"}
# The directives of systemd.exec(5) and related pages that the units use; systemd ignores a misspelt directive.
KNOWN = {
    "Unit": {"Description", "Documentation", "Wants", "After"},
    "Service": {
        *("ExecStart", "EnvironmentFile", "Environment", "DynamicUser", "StateDirectory", "Restart", "RestartSec"),
        *("TimeoutStopSec", "NoNewPrivileges", "PrivateTmp", "ProtectHome", "ProtectSystem"),
    },
    "Install": {"WantedBy"},
}
FROM_ZERO = read_yaml(REPOSITORY / "docs" / "examples" / "gpu-from-zero.yaml")["Resources"]


def unit(engine: str) -> dict[str, dict[str, str]]:
    """Return the unit's sections. A backslash continues a line, as in systemd; any other syntax fails."""
    sections: dict[str, dict[str, str]] = {}
    section: dict[str, str] = {}
    text = re.sub(r"\\\n\s*", "", (FILES / f"{engine}.service").read_text())
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section = sections.setdefault(match[1], {})
            continue
        name, value = line.split("=", 1)
        assert name not in section, line
        section[name] = value
    return sections


def service(engine: str) -> dict[str, Any]:
    (compose_service,) = yaml.safe_load((FILES / f"compose.{engine}.yaml").read_text())["services"].values()
    return compose_service


def flags(arguments: list[str]) -> dict[str, str]:
    """Return each flag and its value; every flag used here has one."""
    values = {word: arguments[index + 1] for index, word in enumerate(arguments) if word.startswith("--")}
    assert all(isinstance(word, str) for word in arguments)
    assert not [value for value in values.values() if value.startswith("--")]
    return values


def unit_flags(engine: str) -> dict[str, str]:
    return flags(unit(engine)["Service"]["ExecStart"].split())


def provider() -> Provider:
    (block,) = re.findall(r"```yaml\n(providers:.*?)```", PAGE, re.DOTALL)
    (config,) = yaml.safe_load(block)["providers"]
    return Provider.model_validate(config)


@pytest.mark.parametrize("engine", ENGINES)
def test_unit_contains_only_directives_known_to_systemd(engine: str) -> None:
    for name, section in unit(engine).items():
        assert set(section) <= KNOWN[name]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_a_unit_whose_program_exists(engine: str, tmp_path: Path) -> None:
    text = (FILES / f"{engine}.service").read_text()
    copy = tmp_path / f"{engine}.service"
    copy.write_text(re.sub(r"ExecStart=\S+", f"ExecStart={sys.executable}", text))
    command = ["systemd-analyze", "verify", "--man=no", "--generators=no", str(copy)]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (completed.returncode, completed.stderr) == (0, "")


@pytest.mark.parametrize("engine", ENGINES)
def test_engine_listens_on_loopback_and_hides_its_key_from_process_lists(engine: str) -> None:
    unit_service, compose = unit(engine)["Service"], service(engine)
    port = unit_flags(engine)["--port"]
    assert unit_flags(engine)["--host"] == "127.0.0.1"
    assert compose["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert unit_service["EnvironmentFile"] == f"/etc/{engine}.env"
    assert compose["env_file"] == f"{engine}.env"
    for text in (unit_service["ExecStart"], unit_service["Environment"], *compose["command"]):
        assert "key" not in text.lower()


@pytest.mark.parametrize("engine", ENGINES)
def test_unit_and_compose_file_start_the_engine_with_the_same_flags(engine: str) -> None:
    compose_flags = flags(service(engine)["command"])
    service_flags = unit_flags(engine)
    names = compose_flags.keys() | service_flags.keys()
    different = {name for name in names if compose_flags.get(name) != service_flags.get(name)}
    assert different == {"--host"}  # inside a container the engine listens on all addresses


@pytest.mark.parametrize("engine", ENGINES)
def test_every_flag_is_in_the_table_of_the_page(engine: str) -> None:
    for flag in unit_flags(engine):
        assert re.search(rf"^\|.*`{flag}`", PAGE, re.MULTILINE), flag


@pytest.mark.parametrize("engine", ENGINES)
def test_container_is_pinned_has_the_gpu_and_a_health_check(engine: str) -> None:
    compose = service(engine)
    tag = compose["image"].rpartition(":")[2]
    assert re.search(r"\d", tag)
    assert tag in PAGE
    (device,) = compose["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert f"http://127.0.0.1:{unit_flags(engine)['--port']}/health" in " ".join(compose["healthcheck"]["test"])
    assert compose["healthcheck"]["start_period"].endswith("m")
    assert compose["restart"] == "unless-stopped"


def test_image_and_pip_have_the_same_vllm_version() -> None:
    version = service("vllm")["image"].rpartition(":v")[2]
    assert f"vllm=={version}" in PAGE


@pytest.mark.parametrize("engine", ENGINES)
def test_provider_of_the_page_matches_the_engine_s_model_and_concurrency(engine: str) -> None:
    assert unit_flags(engine)[NAME[engine]] in provider().models
    assert str(provider().concurrency) == unit_flags(engine)[SLOTS[engine]]
    assert provider().queue == "gpu"


@pytest.mark.parametrize("engine", ENGINES)
def test_engine_offers_all_operations_of_the_provider_of_the_page(engine: str) -> None:
    assert provider().preset in ENGINES
    assert set(provider().operations) <= set(CATALOGUE[engine].operations)


def test_proxy_forwards_only_the_provider_s_operations_and_model_list() -> None:
    root = urlsplit(provider().base_url).path
    paths = {root + OPERATIONS[operation].path for operation in provider().operations} | {root + MODELS_PATH}
    (forwarded,) = re.findall(
        r"^\t@allowed path (.+)\n\thandle @allowed {\n\t\treverse_proxy ", CADDYFILE, re.MULTILINE
    )
    assert sorted(forwarded.split()) == sorted(paths)
    assert "\thandle {\n\t\trespond 404\n" in CADDYFILE


def test_parameters_of_the_page_match_the_engine_s_concurrency() -> None:
    match = re.search(r"GpuMaximumConcurrency=(\d+) GpuBatchSize=(\d+)", PAGE)
    assert match
    assert int(match[1]) * int(match[2]) == provider().concurrency
    assert {"GpuMaximumConcurrency", "GpuBatchSize"} <= set(TEMPLATE.transformed["Parameters"])


def test_page_quotes_the_caddyfile_verbatim_and_links_every_file() -> None:
    assert f"```\n{CADDYFILE}```" in PAGE
    for file in FILES.iterdir():
        assert f"(examples/gpu/{file.name})" in PAGE


def test_proxy_forwards_to_the_port_of_each_engine() -> None:
    (line,) = [line for line in CADDYFILE.splitlines() if "reverse_proxy" in line]
    assert all(unit_flags(engine)["--port"] in line for engine in ENGINES)


def test_alarm_counts_waiting_running_and_delayed_jobs_of_its_queue() -> None:
    alarm = FROM_ZERO["JobsForTheGpu"]["Properties"]
    total, *metrics = alarm["Metrics"]
    names = {part["MetricStat"]["Metric"]["MetricName"] for part in metrics}
    assert names == {f"ApproximateNumberOfMessages{suffix}" for suffix in ("Visible", "NotVisible", "Delayed")}
    assert total["Expression"] == " + ".join(f"FILL({part['Id']}, 0)" for part in metrics)
    for part in metrics:
        assert part["MetricStat"]["Metric"]["Namespace"] == "AWS/SQS"
        (dimension,) = part["MetricStat"]["Metric"]["Dimensions"]
        index, split = dimension["Value"]["Fn::Select"]
        assert "https://sqs.us-east-1.amazonaws.com/123456789012/gpu".split(split["Fn::Split"][0])[index] == "gpu"
    assert (alarm["DatapointsToAlarm"], alarm["Threshold"]) == (1, 0)


def test_keeper_may_start_and_stop_only_its_instance() -> None:
    permissions: dict[str, Any] = {}
    for role in ("KeeperRole", "RuleRole"):
        (policy,) = FROM_ZERO[role]["Properties"]["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]:
            actions = statement["Action"]
            for action in [actions] if isinstance(actions, str) else actions:
                permissions[action] = statement["Resource"]
    instance = permissions.pop("ec2:StartInstances")
    assert permissions.pop("ec2:StopInstances") == instance
    assert instance["Fn::Sub"].endswith(":instance/${InstanceId}")
    assert permissions == {
        "cloudwatch:DescribeAlarms": {"Fn::GetAtt": ["JobsForTheGpu", "Arn"]},
        "states:StartExecution": {"Ref": "Keeper"},
    }
    for action in ("ec2:StartInstances", "ec2:StopInstances", *permissions):
        assert f"`{action}`" in PAGE


def test_instance_starts_on_alarm_and_stops_on_ok_only() -> None:
    states = FROM_ZERO["Keeper"]["Properties"]["Definition"]["States"]
    resources = {choice["StringEquals"]: states[choice["Next"]]["Resource"] for choice in states["Decide"]["Choices"]}
    assert {state: resource.rpartition(":")[2] for state, resource in resources.items()} == {
        "ALARM": "startInstances",
        "OK": "stopInstances",
    }
    assert states[states["Decide"]["Default"]] == {"Type": "Succeed"}


def test_keeper_runs_on_alarm_changes_and_on_a_schedule() -> None:
    """The schedule repeats a failed start."""
    rules = [resource["Properties"] for resource in FROM_ZERO.values() if resource["Type"] == "AWS::Events::Rule"]
    assert {rule.get("ScheduleExpression") for rule in rules} == {None, "rate(5 minutes)"}
    for rule in rules:
        (target,) = rule["Targets"]
        assert target["Arn"] == {"Ref": "Keeper"}
