"""docs/gpu.md and its examples: units, compose files and page agree, and the stack may do what it must.

Docker, a GPU and AWS are not asked.
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

from aiserver.providers.catalogue import CATALOGUE
from aiserver.providers.openai import MODELS_PATH, PATHS
from aiserver.providers.provider import Provider
from local.template import REPOSITORY, read_yaml
from tests.stack import TEMPLATE

PAGE = (REPOSITORY / "docs" / "gpu.md").read_text()
FILES = REPOSITORY / "docs" / "examples" / "gpu"
CADDYFILE = (FILES / "Caddyfile").read_text()
ENGINES = ["vllm", "llama-cpp"]
SLOTS = {"vllm": "--max-num-seqs", "llama-cpp": "--parallel"}
NAME = {"vllm": "--served-model-name", "llama-cpp": "--alias"}
# What systemd.exec(5) and its siblings know, as far as the units use it: a word misspelt is ignored by systemd.
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
    """The unit's sections. As systemd does, a line that ends in a backslash goes on; unlike it, nothing else passes."""
    sections: dict[str, dict[str, str]] = {}
    section: dict[str, str] = {}
    text = re.sub(r"\\\n\s*", "", (FILES / f"{engine}.service").read_text())
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        if found := re.fullmatch(r"\[(\w+)\]", line):
            section = sections.setdefault(found[1], {})
            continue
        name, value = line.split("=", 1)
        assert name not in section, line
        section[name] = value
    return sections


def service(engine: str) -> dict[str, Any]:
    (found,) = yaml.safe_load((FILES / f"compose.{engine}.yaml").read_text())["services"].values()
    return found


def flags(words: list[str]) -> dict[str, str]:
    """Each flag and its value; every flag of ours has one."""
    named = {word: words[at + 1] for at, word in enumerate(words) if word.startswith("--")}
    assert all(isinstance(word, str) for word in words)
    assert not [value for value in named.values() if value.startswith("--")]
    return named


def unit_flags(engine: str) -> dict[str, str]:
    return flags(unit(engine)["Service"]["ExecStart"].split())


def provider() -> Provider:
    (block,) = re.findall(r"```yaml\n(providers:.*?)```", PAGE, re.DOTALL)
    (row,) = yaml.safe_load(block)["providers"]
    return Provider.model_validate(row)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_unit_says_only_what_systemd_knows(engine: str) -> None:
    for name, section in unit(engine).items():
        assert set(section) <= KNOWN[name]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze to ask")
def test_systemd_takes_a_unit_whose_program_is_there(engine: str, tmp_path: Path) -> None:
    text = (FILES / f"{engine}.service").read_text()
    copy = tmp_path / f"{engine}.service"
    copy.write_text(re.sub(r"ExecStart=\S+", f"ExecStart={sys.executable}", text))
    command = ["systemd-analyze", "verify", "--man=no", "--generators=no", str(copy)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (said.returncode, said.stderr) == (0, "")


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_is_reached_from_its_own_machine_only_and_asks_for_a_key_no_process_list_shows(engine: str) -> None:
    told, compose = unit(engine)["Service"], service(engine)
    port = unit_flags(engine)["--port"]
    assert unit_flags(engine)["--host"] == "127.0.0.1"
    assert compose["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert told["EnvironmentFile"] == f"/etc/{engine}.env"
    assert compose["env_file"] == f"{engine}.env"
    for words in (told["ExecStart"], told["Environment"], *compose["command"]):
        assert "key" not in words.lower()


@pytest.mark.parametrize("engine", ENGINES)
def test_unit_and_compose_file_start_the_engine_with_the_same_flags(engine: str) -> None:
    inside = flags(service(engine)["command"])
    outside = unit_flags(engine)
    differ = {name for name in inside.keys() | outside.keys() if inside.get(name) != outside.get(name)}
    assert differ == {"--host"}  # inside a container it is any


@pytest.mark.parametrize("engine", ENGINES)
def test_every_flag_is_in_the_page_s_table(engine: str) -> None:
    for flag in unit_flags(engine):
        assert re.search(rf"^\|.*`{flag}`", PAGE, re.MULTILINE), flag


@pytest.mark.parametrize("engine", ENGINES)
def test_a_container_is_pinned_has_the_gpu_and_tells_its_health(engine: str) -> None:
    compose = service(engine)
    tag = compose["image"].rpartition(":")[2]
    assert re.search(r"\d", tag)
    assert tag in PAGE
    (device,) = compose["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert f"http://127.0.0.1:{unit_flags(engine)['--port']}/health" in " ".join(compose["healthcheck"]["test"])
    assert compose["healthcheck"]["start_period"].endswith("m")
    assert compose["restart"] == "unless-stopped"


def test_the_pinned_vllm_is_one_for_image_and_pip() -> None:
    version = service("vllm")["image"].rpartition(":v")[2]
    assert f"vllm=={version}" in PAGE


@pytest.mark.parametrize("engine", ENGINES)
def test_the_page_s_provider_asks_for_the_engine_s_model_and_no_more_at_once_than_it_does(engine: str) -> None:
    assert unit_flags(engine)[NAME[engine]] in provider().models
    assert str(provider().concurrency) == unit_flags(engine)[SLOTS[engine]]
    assert provider().queue == "gpu"


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_offers_all_that_the_page_s_provider_is_asked_for(engine: str) -> None:
    assert provider().preset in ENGINES
    assert set(provider().operations) <= set(CATALOGUE[engine].operations)


def test_the_proxy_lets_pass_what_the_page_s_provider_offers_and_the_list_of_models_and_nothing_else() -> None:
    root = urlsplit(provider().base_url).path
    asked = {root + PATHS[operation] for operation in provider().operations} | {root + MODELS_PATH}
    (passed,) = re.findall(r"^\t@asked path (.+)\n\thandle @asked {\n\t\treverse_proxy ", CADDYFILE, re.MULTILINE)
    assert sorted(passed.split()) == sorted(asked)
    assert "\thandle {\n\t\trespond 404\n" in CADDYFILE


def test_the_page_s_parameters_run_as_many_jobs_as_the_engine_takes() -> None:
    found = re.search(r"GpuMaximumConcurrency=(\d+) GpuBatchSize=(\d+)", PAGE)
    assert found
    assert int(found[1]) * int(found[2]) == provider().concurrency
    assert {"GpuMaximumConcurrency", "GpuBatchSize"} <= set(TEMPLATE.transformed["Parameters"])


def test_the_page_shows_the_caddyfile_as_it_is_and_links_every_file() -> None:
    assert f"```\n{CADDYFILE}```" in PAGE
    for file in FILES.iterdir():
        assert f"(examples/gpu/{file.name})" in PAGE


def test_the_proxy_leads_to_the_port_of_each_engine() -> None:
    (line,) = [line for line in CADDYFILE.splitlines() if "reverse_proxy" in line]
    assert all(unit_flags(engine)["--port"] in line for engine in ENGINES)


def test_the_alarm_counts_jobs_that_wait_run_or_are_delayed_in_the_queue_it_is_given() -> None:
    alarm = FROM_ZERO["JobsForTheGpu"]["Properties"]
    summed, *parts = alarm["Metrics"]
    names = {part["MetricStat"]["Metric"]["MetricName"] for part in parts}
    assert names == {f"ApproximateNumberOfMessages{which}" for which in ("Visible", "NotVisible", "Delayed")}
    assert summed["Expression"] == " + ".join(f"FILL({part['Id']}, 0)" for part in parts)
    for part in parts:
        assert part["MetricStat"]["Metric"]["Namespace"] == "AWS/SQS"
        (dimension,) = part["MetricStat"]["Metric"]["Dimensions"]
        at, split = dimension["Value"]["Fn::Select"]
        assert "https://sqs.us-east-1.amazonaws.com/123456789012/gpu".split(split["Fn::Split"][0])[at] == "gpu"
    assert (alarm["DatapointsToAlarm"], alarm["Threshold"]) == (1, 0)


def test_what_keeps_the_instance_may_start_and_stop_that_one_and_nothing_else() -> None:
    may: dict[str, Any] = {}
    for role in ("KeeperRole", "RuleRole"):
        (policy,) = FROM_ZERO[role]["Properties"]["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]:
            actions = statement["Action"]
            for action in [actions] if isinstance(actions, str) else actions:
                may[action] = statement["Resource"]
    instance = may.pop("ec2:StartInstances")
    assert may.pop("ec2:StopInstances") == instance
    assert instance["Fn::Sub"].endswith(":instance/${InstanceId}")
    assert may == {
        "cloudwatch:DescribeAlarms": {"Fn::GetAtt": ["JobsForTheGpu", "Arn"]},
        "states:StartExecution": {"Ref": "Keeper"},
    }
    for action in ("ec2:StartInstances", "ec2:StopInstances", *may):
        assert f"`{action}`" in PAGE


def test_the_instance_starts_on_alarm_and_stops_on_ok_and_no_other_state_touches_it() -> None:
    states = FROM_ZERO["Keeper"]["Properties"]["Definition"]["States"]
    ways = {choice["StringEquals"]: states[choice["Next"]]["Resource"] for choice in states["Decide"]["Choices"]}
    assert {state: resource.rpartition(":")[2] for state, resource in ways.items()} == {
        "ALARM": "startInstances",
        "OK": "stopInstances",
    }
    assert states[states["Decide"]["Default"]] == {"Type": "Succeed"}


def test_it_is_looked_at_when_the_alarm_changes_and_by_the_clock_so_that_a_start_that_failed_is_tried_again() -> None:
    rules = [one["Properties"] for one in FROM_ZERO.values() if one["Type"] == "AWS::Events::Rule"]
    assert {rule.get("ScheduleExpression") for rule in rules} == {None, "rate(5 minutes)"}
    for rule in rules:
        (target,) = rule["Targets"]
        assert target["Arn"] == {"Ref": "Keeper"}
