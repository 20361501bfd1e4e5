"""The commands of people and scripts: dev, demo, invoke and the admin tool."""

import contextlib
import io
import json
import os
import pty
import re
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock
from urllib.parse import urlsplit

import httpx
import pytest

from aiserver.admin.__main__ import main as admin_main
from local.receiver import receiver
from local.template import REPOSITORY
from local.verify_deploy import PROBES
from tests.flow.commands import CHAT, PROVIDERS
from tests.flow.conftest import Product


def run(*arguments: str, stdin: int | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=REPOSITORY,
        env=os.environ | environment,
        stdin=stdin or subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def admin(product: Product, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the admin tool in this process; one test covers the separate process."""
    output, errors = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, _account(product) | environment),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
        open(os.devnull) as empty_stdin,
        mock.patch.object(sys, "stdin", empty_stdin),
    ):
        status = admin_main(arguments)
    return subprocess.CompletedProcess(arguments, status, output.getvalue(), errors.getvalue())


def admin_process(product: Product, *arguments: str, stdin: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run the admin tool in a separate process."""
    return run("aiserver.admin", *arguments, stdin=stdin, **_account(product))


def _account(product: Product) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": product.cloud.endpoint_url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def run_at_terminal(product: Product, answer: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the admin tool at a terminal and type `answer`."""
    controller, terminal = pty.openpty()
    try:
        os.write(controller, f"{answer}\n".encode())
        return admin_process(product, *arguments, stdin=terminal)
    finally:
        os.close(controller)
        os.close(terminal)


def test_invoke_prints_the_response_of_a_streaming_function() -> None:
    completed = run("local.invoke", "chat")
    assert completed.returncode == 0, completed.stderr
    response = json.loads(completed.stdout)
    assert response["statusCode"] == 200
    assert json.loads(response["body"])["object"] == "chat.completion"


def test_port_in_use_is_a_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        failed = run("local.dev", PORT=str(port))
    assert failed.returncode == 1
    assert failed.stderr.strip() == f"dev: Port {port} is in use; choose another, for example PORT={port + 1} make dev"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("providers: [{name: a}]", "base_url"),
        ("nothing: 1", "'providers'"),
        ("providers: [{name: a, base_url: http://x, api_key_var: UNSET_KEY, models: {m: }}]", "UNSET_KEY is not set"),
        ("a: [", "not valid YAML"),
    ],
)
def test_invalid_provider_configuration_is_an_error_of_one_line(
    text: str, message: str, product: Product, tmp_path: Path
) -> None:
    file = tmp_path / "providers.yaml"
    file.write_text(text)
    failed = admin(product, "providers", "apply", str(file))
    assert (failed.returncode, failed.stdout) == (1, "")
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr


def test_admin_tool_creates_lists_and_revokes_keys(product: Product) -> None:
    key = json.loads(admin_process(product, "keys", "create", "by-hand", "--expires-days", "1").stdout)
    headers = {"authorization": f"Bearer {key['key']}"}
    assert httpx.get(f"{product.url}/v1/models", headers=headers).status_code == 200
    listing = admin(product, "keys", "list").stdout
    assert key["id"] in listing
    assert key["key"] not in listing
    revoked_key = json.loads(admin(product, "keys", "revoke", key["id"]).stdout)
    assert revoked_key["revoked"].endswith("Z")
    assert admin(product, "keys", "revoke", "nobody").returncode == 1


def test_admin_tool_migrates_keys_and_back(product: Product) -> None:
    created = json.loads(admin(product, "keys", "create", "migrated").stdout)
    keys = len(admin(product, "keys", "list").stdout.splitlines())
    for arguments, migrated in (([], 0), (["--back"], keys), ([], keys)):
        lines = list(map(json.loads, admin(product, "keys", "migrate", *arguments).stdout.splitlines()))
        assert [len(lines), sum(line["migrated"] for line in lines)] == [keys, migrated]
        assert (
            json.loads(admin(product, "keys", "secret", created["id"]).stdout)["webhookSecret"]
            == created["webhookSecret"]
        )


def test_admin_tool_rotates_the_secret_of_a_key_until_it_is_revoked(product: Product) -> None:
    key = json.loads(admin(product, "keys", "create", "rotated").stdout)
    rotated = json.loads(admin(product, "keys", "rotate-secret", key["id"]).stdout)
    assert rotated["previousWebhookSecret"] == key["webhookSecret"]
    assert datetime.fromisoformat(rotated["previousSignsUntil"]) - datetime.now(UTC) > timedelta(hours=23)
    assert json.loads(admin(product, "keys", "secret", key["id"]).stdout) == rotated
    second_rotation = admin(product, "keys", "rotate-secret", key["id"], "--overlap-hours", "2")
    assert (second_rotation.returncode, second_rotation.stdout) == (1, "")
    assert re.fullmatch(r"aiserver: key \w+ is being rotated: [^\n]+ with --overlap-hours 0\n", second_rotation.stderr)
    without_overlap = json.loads(admin(product, "keys", "rotate-secret", key["id"], "--overlap-hours", "0").stdout)
    assert without_overlap["previousWebhookSecret"] is without_overlap["previousSignsUntil"] is None
    secrets = {key["webhookSecret"], rotated["webhookSecret"], without_overlap["webhookSecret"]}
    assert len(secrets) == 3
    assert json.loads(admin(product, "keys", "secret", key["id"]).stdout) == without_overlap
    admin(product, "keys", "revoke", key["id"])
    rotation_of_revoked_key = admin(product, "keys", "rotate-secret", key["id"])
    assert (rotation_of_revoked_key.returncode, rotation_of_revoked_key.stderr) == (
        1,
        f"aiserver: key {key['id']} is revoked; create a new key instead\n",
    )
    listing = admin(product, "keys", "list").stdout
    assert key["id"] in listing
    assert not [secret for secret in secrets if secret in listing]


def test_admin_tool_lists_the_callback_hosts_of_a_key(product: Product) -> None:
    allowed_hosts = ("Hooks.example.com", "*.bücher.example", "a.example.org")
    options = [word for host in allowed_hosts for word in ("--callback-host", host)]
    created = json.loads(admin(product, "keys", "create", "allow-list", *options).stdout)

    def callback_hosts() -> list[str]:
        keys = [json.loads(line) for line in admin(product, "keys", "list").stdout.splitlines()]
        return next(key["callbackHosts"] for key in keys if key["id"] == created["id"])

    assert callback_hosts() == ["hooks.example.com", "*.xn--bcher-kva.example", "a.example.org"]
    rejected = admin(product, "keys", "callback-hosts", created["id"], "b.example.com", "https://b.example.com/hook")
    assert (rejected.returncode, rejected.stdout) == (1, "")
    assert rejected.stderr.startswith("aiserver: 'https://b.example.com/hook' is not a valid callback host; write ")
    assert len(callback_hosts()) == 3
    replaced = json.loads(admin(product, "keys", "callback-hosts", created["id"], "b.example.com").stdout)
    assert replaced == {"id": created["id"], "name": "allow-list", "callbackHosts": ["b.example.com"]}
    assert callback_hosts() == ["b.example.com"]
    assert json.loads(admin(product, "keys", "callback-hosts", created["id"]).stdout)["callbackHosts"] == []
    assert callback_hosts() == []


def test_provider_api_key_is_stored_as_a_secure_string_and_not_shown(product: Product, tmp_path: Path) -> None:
    before = admin(product, "providers", "list").stdout
    file = tmp_path / "providers.yaml"
    file.write_text(PROVIDERS.format(base_url=product.upstream.base_url))
    try:
        applied = admin(product, "providers", "apply", str(file), "--yes", MY_KEY="sk-secret")
        assert applied.returncode == 0, applied.stderr
        (provider,) = [json.loads(line) for line in applied.stdout.splitlines()]
        assert (
            provider["api_key_secret"]
            == f"/aiserver/providers/mine/127.0.0.1_{urlsplit(product.upstream.base_url).port}/api-key"
        )
        assert "sk-secret" not in applied.stdout + admin(product, "providers", "list").stdout
    finally:
        restore_file = tmp_path / "before.yaml"
        restore_file.write_text(json.dumps({"providers": [json.loads(line) for line in before.splitlines()]}))
        unconfirmed = admin(product, "providers", "apply", str(restore_file))
        assert (unconfirmed.returncode, unconfirmed.stdout) == (1, "")
        assert unconfirmed.stderr.endswith(
            "- mine\naiserver: nothing was changed; add --yes to apply without confirmation\n"
        )
        assert admin(product, "providers", "apply", str(restore_file), "--dry-run").stdout == ""
        assert admin(product, "providers", "apply", str(restore_file), "--yes").stdout == before
        assert admin(product, "providers", "apply", str(restore_file)).stdout == before  # no change to confirm
        status = json.loads(admin(product, "providers", "show", "scripted").stdout)
        assert (status["name"], status["circuit"]) == ("scripted", "closed")


def test_admin_tool_asks_for_confirmation_at_a_terminal(product: Product, tmp_path: Path) -> None:
    before = admin(product, "providers", "list").stdout
    providers = [json.loads(line) for line in before.splitlines()]
    file, restore_file = tmp_path / "providers.yaml", tmp_path / "before.yaml"
    file.write_text(json.dumps({"providers": [{**providers[0], "priority": 3}, *providers[1:]]}))
    restore_file.write_text(json.dumps({"providers": providers}))
    try:
        for answer in ("", "what?"):
            unconfirmed = run_at_terminal(product, answer, "providers", "apply", str(file))
            assert (unconfirmed.returncode, unconfirmed.stdout) == (1, "")
            assert unconfirmed.stderr == (
                "~ scripted  priority: 0 -> 3\nApply these changes? [y/N] aiserver: nothing was changed\n"
            )
        assert admin(product, "providers", "list").stdout == before
        applied = run_at_terminal(product, "y", "providers", "apply", str(file))
        assert json.loads(applied.stdout.splitlines()[0])["priority"] == 3
    finally:
        admin(product, "providers", "apply", str(restore_file), "--yes")
    assert admin(product, "providers", "list").stdout == before


def test_provider_check_continues_after_an_invalid_provider(product: Product, tmp_path: Path) -> None:
    before = admin(product, "providers", "list").stdout
    providers = [json.loads(line) for line in before.splitlines()]
    invalid_provider = {**providers[0], "name": "a-wrong-one", "models": {"unheard-of": ""}}
    file, restore_file = tmp_path / "providers.yaml", tmp_path / "before.yaml"
    file.write_text(json.dumps({"providers": [invalid_provider, *providers]}))
    restore_file.write_text(json.dumps({"providers": providers}))
    try:
        admin(product, "providers", "apply", str(file), "--yes")
        checked = admin_process(product, "providers", "check")
        assert [json.loads(line)["name"] for line in checked.stdout.splitlines()] == ["scripted", "scripted-gpu"]
        assert (checked.returncode, "a-wrong-one: does not list unheard-of" in checked.stderr) == (1, True)
        assert admin_process(product, "providers", "check", "scripted").returncode == 0
    finally:
        admin(product, "providers", "apply", str(restore_file), "--yes")
    assert admin(product, "providers", "list").stdout == before


def test_provider_is_disabled_and_enabled_by_name(product: Product) -> None:
    before = admin(product, "providers", "list").stdout
    try:
        disabled = json.loads(admin(product, "providers", "disable", "scripted-gpu").stdout)
        assert (disabled["name"], disabled["enabled"]) == ("scripted-gpu", False)
        assert '"enabled": false' in admin(product, "providers", "list").stdout
    finally:
        admin(product, "providers", "enable", "scripted-gpu")
    assert admin(product, "providers", "list").stdout == before
    unknown = admin(product, "providers", "disable", "nobody")
    assert (unknown.returncode, unknown.stderr) == (
        1,
        "aiserver: provider nobody does not exist; see `providers list`\n",
    )


def test_operator_redrives_a_failed_job(product: Product) -> None:
    product.upstream.respond_with(400, b'{"error":{"message":"not today"}}')
    queued = product.http.post("/api/QueueOpenAiChatCompletion", json={"refId": "redriven", "request": CHAT}).json()
    assert product.wait_for_job("redriven")["state"] == "Failed"
    redriven = admin(product, "jobs", "redrive", str(queued["id"]))
    assert json.loads(redriven.stdout)["state"] == "Queued", redriven.stderr
    assert product.wait_for_job("redriven")["state"] == "Completed"
    product.upstream.respond_with(400, b'{"error":{"message":"not today"}}')
    second_job = product.http.post(
        "/api/QueueOpenAiChatCompletion", json={"refId": "redriven-2", "request": CHAT}
    ).json()
    assert product.wait_for_job("redriven-2")["state"] == "Failed"
    second_redrive = admin(product, "jobs", "redrive", str(queued["id"]), "4711", str(second_job["id"]))
    assert (
        json.loads(second_redrive.stdout)["id"] == second_job["id"]
    )  # jobs that cannot be redriven do not stop the others
    assert second_redrive.returncode == 1
    assert second_redrive.stderr.splitlines() == [
        f"aiserver: job {queued['id']} is Completed; only a Failed job can be redriven",
        "aiserver: job 4711 does not exist or has expired",
    ]
    assert product.wait_for_job("redriven-2")["state"] == "Completed"


def test_operator_lists_and_redelivers_dead_callbacks(product: Product) -> None:
    statuses = iter([410, 410, 200, 200])
    with receiver(lambda _: next(statuses)) as hook:
        for name in ("dead-1", "dead-2"):
            body = {"refId": name, "replyTo": hook.url, "request": CHAT}
            product.http.post("/api/QueueOpenAiChatCompletion", json=body)
            product.wait_for_job(name)
        first_ids = {hook.next(10).headers["webhook-id"] for _ in range(2)}
        host_option = ["--host", "127.0.0.1"]
        for _ in range(20):  # the receiver responds before the callback state is written
            if len(callbacks := dead_callbacks(product, *host_option)) == 2:
                break
        assert {callback["refId"] for callback in callbacks} == {"dead-1", "dead-2"}
        assert {callback["lastStatus"] for callback in callbacks} == {410}
        redelivery = admin(product, "callbacks", "redeliver", "--dead", *host_option)
        assert len(redelivery.stdout.splitlines()) == 2, redelivery.stderr
        second_ids = {hook.next(10).headers["webhook-id"] for _ in range(2)}
    assert {webhook_id.rpartition("_")[0] for webhook_id in first_ids} == {
        webhook_id.rpartition("_")[0] for webhook_id in second_ids
    }
    assert {webhook_id.rpartition("_")[2] for webhook_id in second_ids} == {"1"}
    rejected = admin(product, "callbacks", "redeliver", "--dead", "4711")
    assert (rejected.returncode, rejected.stdout) == (1, "")
    assert rejected.stderr.startswith("aiserver: callbacks redeliver requires job ids, or --dead")


def dead_callbacks(product: Product, *options: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in admin(product, "callbacks", "list", *options).stdout.splitlines()]


def test_missing_stack_is_an_error_of_one_line(product: Product) -> None:
    failed = admin_process(product, "--stack", "nowhere", "keys", "list")
    assert failed.returncode == 1
    assert failed.stderr.startswith("aiserver: cannot read stack nowhere")
    assert "Traceback" not in failed.stderr


def test_verify_deploy_probes_a_deployment_and_reports_differences(product: Product) -> None:
    product.upstream.chunk_delay_s = 0.01
    try:
        audio = {"SPEECH_MODEL": "tts-1", "TRANSCRIPTION_MODEL": "whisper-1"}
        verification = run("local.verify_deploy", URL=product.url + "/", KEY=product.key, **audio)
        chats = [request for request in product.upstream.requests if request.path == "/v1/chat/completions"]
        token_limits = sorted(json.loads(request.body)["max_tokens"] for request in chats)

        product.upstream.respond_with(200, b"<html>")
        models = {"MODEL": "llama3:8b", "SLOW_MODEL": "llama3:8b", **audio}
        failed = run("local.verify_deploy", URL=product.url, KEY=product.key, **models)
    finally:
        product.upstream.chunk_delay_s = 0
    assert verification.returncode == 0, verification.stdout
    count = len(PROBES)
    assert f"{count - 1} of {count} as expected, 1 not checked, model gpt-4-turbo" in verification.stdout
    assert re.search(r"\n--    long response, not streamed .+ not checked: set SLOW_MODEL", verification.stdout)
    assert re.search(r"\nok    streamed chat  .+ 20 events, \d+ reads, first after", verification.stdout)
    assert token_limits == [5] * 4 + [80]

    assert failed.returncode == 1
    (row,) = [line for line in failed.stdout.splitlines() if line.startswith("FAIL")]
    assert re.match(r"FAIL  synchronous chat +200, choices +502 application/json", row)
    assert re.search(r"\n--    long response, not streamed .+ finished after \d\.\d s; set SLOW_MODEL", failed.stdout)
    assert f"{count - 2} of {count}" in failed.stdout
    assert product.key not in verification.stdout + failed.stdout


def test_verify_deploy_without_a_model_or_a_key_is_an_error_of_one_line(product: Product) -> None:
    rejected = run("local.verify_deploy", URL=product.url, KEY="ak-nobody")
    assert (rejected.returncode, rejected.stdout.count("\n")) == (1, 1)
    assert run("local.verify_deploy", URL=product.url).returncode == 2


def test_demo_shows_every_step() -> None:
    completed = run("local.demo")
    assert completed.returncode == 0, completed.stderr
    for text in (
        "SCRIPTED",
        "1. Synchronous request",
        "2. Streaming",
        "3. Queued job",
        "signature valid",
        "jobState Completed",
        "404 NotFound",
    ):
        assert text in completed.stdout
