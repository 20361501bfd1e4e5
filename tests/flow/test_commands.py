"""The commands people and scripts rely on, as they run them: dev, demo, invoke and the admin tool."""

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
    """The admin tool on these arguments, in this process: what a process of its own adds is tested once."""
    output, errors = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, _account(product) | environment),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
        open(os.devnull) as nothing,
        mock.patch.object(sys, "stdin", nothing),
    ):
        status = admin_main(arguments)
    return subprocess.CompletedProcess(arguments, status, output.getvalue(), errors.getvalue())


def admin_process(product: Product, *arguments: str, stdin: int | None = None) -> subprocess.CompletedProcess[str]:
    """The same as people start it."""
    return run("aiserver.admin", *arguments, stdin=stdin, **_account(product))


def _account(product: Product) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": product.cloud.endpoint_url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def at_a_terminal(product: Product, answer: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a person runs it, who answers so when asked."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{answer}\n".encode())
        return admin_process(product, *arguments, stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)


def test_invoke_shows_what_a_function_answers_though_it_streams() -> None:
    shown = run("local.invoke", "chat")
    assert shown.returncode == 0, shown.stderr
    answer = json.loads(shown.stdout)
    assert answer["statusCode"] == 200
    assert json.loads(answer["body"])["object"] == "chat.completion"


def test_a_taken_port_gets_a_clear_message_and_nothing_is_started() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        failed = run("local.dev", PORT=str(port))
    assert failed.returncode == 1
    assert failed.stderr.strip() == f"dev: port {port} is taken; choose another, as in: PORT={port + 1} make dev"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("providers: [{name: a}]", "base_url"),
        ("nothing: 1", "'providers'"),
        ("providers: [{name: a, base_url: http://x, api_key_var: UNSET_KEY, models: {m: }}]", "UNSET_KEY is not set"),
        ("a: [", "not YAML"),
    ],
)
def test_providers_that_are_configured_wrongly_are_told_in_a_line(
    text: str, why: str, product: Product, tmp_path: Path
) -> None:
    file = tmp_path / "providers.yaml"
    file.write_text(text)
    failed = admin(product, "providers", "apply", str(file))
    assert (failed.returncode, failed.stdout) == (1, "")
    assert why in failed.stderr
    assert "Traceback" not in failed.stderr


def test_the_admin_tool_makes_lists_and_revokes_keys(product: Product) -> None:
    made = json.loads(admin_process(product, "keys", "create", "by-hand", "--expires-days", "1").stdout)
    headers = {"authorization": f"Bearer {made['key']}"}
    assert httpx.get(f"{product.url}/v1/models", headers=headers).status_code == 200
    listed = admin(product, "keys", "list").stdout
    assert made["id"] in listed
    assert made["key"] not in listed
    revoked = json.loads(admin(product, "keys", "revoke", made["id"]).stdout)
    assert revoked["revoked"].endswith("Z")
    assert admin(product, "keys", "revoke", "nobody").returncode == 1


def test_the_admin_tool_migrates_keys_and_back(product: Product) -> None:
    created = json.loads(admin(product, "keys", "create", "migrated").stdout)
    keys = len(admin(product, "keys", "list").stdout.splitlines())
    for arguments, moved in (([], 0), (["--back"], keys), ([], keys)):
        lines = list(map(json.loads, admin(product, "keys", "migrate", *arguments).stdout.splitlines()))
        assert [len(lines), sum(line["migrated"] for line in lines)] == [keys, moved]
        assert (
            json.loads(admin(product, "keys", "secret", created["id"]).stdout)["webhookSecret"]
            == created["webhookSecret"]
        )


def test_the_admin_tool_rotates_a_key_s_secret_until_it_is_revoked(product: Product) -> None:
    made = json.loads(admin(product, "keys", "create", "rotated").stdout)
    rotated = json.loads(admin(product, "keys", "rotate-secret", made["id"]).stdout)
    assert rotated["previousWebhookSecret"] == made["webhookSecret"]
    assert datetime.fromisoformat(rotated["previousSignsUntil"]) - datetime.now(UTC) > timedelta(hours=23)
    assert json.loads(admin(product, "keys", "secret", made["id"]).stdout) == rotated
    again = admin(product, "keys", "rotate-secret", made["id"], "--overlap-hours", "2")
    assert (again.returncode, again.stdout) == (1, "")
    assert re.fullmatch(r"aiserver: key \w+ is being rotated: [^\n]+ with --overlap-hours 0\n", again.stderr)
    alone = json.loads(admin(product, "keys", "rotate-secret", made["id"], "--overlap-hours", "0").stdout)
    assert alone["previousWebhookSecret"] is alone["previousSignsUntil"] is None
    secrets = {made["webhookSecret"], rotated["webhookSecret"], alone["webhookSecret"]}
    assert len(secrets) == 3
    assert json.loads(admin(product, "keys", "secret", made["id"]).stdout) == alone
    admin(product, "keys", "revoke", made["id"])
    revoked = admin(product, "keys", "rotate-secret", made["id"])
    assert (revoked.returncode, revoked.stderr) == (
        1,
        f"aiserver: key {made['id']} is revoked: make a new key instead\n",
    )
    listed = admin(product, "keys", "list").stdout
    assert made["id"] in listed
    assert not [secret for secret in secrets if secret in listed]


def test_the_admin_tool_lists_the_hosts_that_reply_to_may_name(product: Product) -> None:
    given = ("Hooks.example.com", "*.bücher.example", "a.example.org")
    hosts = [word for host in given for word in ("--callback-host", host)]
    made = json.loads(admin(product, "keys", "create", "allow-list", *hosts).stdout)

    def listed() -> list[str]:
        keys = [json.loads(line) for line in admin(product, "keys", "list").stdout.splitlines()]
        return next(key["callbackHosts"] for key in keys if key["id"] == made["id"])

    assert listed() == ["hooks.example.com", "*.xn--bcher-kva.example", "a.example.org"]
    wrong = admin(product, "keys", "callback-hosts", made["id"], "b.example.com", "https://b.example.com/hook")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr.startswith("aiserver: 'https://b.example.com/hook' is no callback host; write ")
    assert len(listed()) == 3
    replaced = json.loads(admin(product, "keys", "callback-hosts", made["id"], "b.example.com").stdout)
    assert replaced == {"id": made["id"], "name": "allow-list", "callbackHosts": ["b.example.com"]}
    assert listed() == ["b.example.com"]
    assert json.loads(admin(product, "keys", "callback-hosts", made["id"]).stdout)["callbackHosts"] == []
    assert listed() == []


def test_a_provider_s_key_is_kept_as_a_secure_string_and_never_shown(product: Product, tmp_path: Path) -> None:
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
        again = tmp_path / "before.yaml"
        again.write_text(json.dumps({"providers": [json.loads(line) for line in before.splitlines()]}))
        unasked = admin(product, "providers", "apply", str(again))
        assert (unasked.returncode, unasked.stdout) == (1, "")
        assert unasked.stderr.endswith(
            "- mine\naiserver: nothing was changed: say --yes to apply this without being asked\n"
        )
        assert admin(product, "providers", "apply", str(again), "--dry-run").stdout == ""
        assert admin(product, "providers", "apply", str(again), "--yes").stdout == before
        assert admin(product, "providers", "apply", str(again)).stdout == before  # nothing to ask about
        shown = json.loads(admin(product, "providers", "show", "scripted").stdout)
        assert (shown["name"], shown["circuit"]) == ("scripted", "closed")


def test_an_operator_at_a_terminal_is_asked_before_providers_are_changed(product: Product, tmp_path: Path) -> None:
    before = admin(product, "providers", "list").stdout
    listed = [json.loads(line) for line in before.splitlines()]
    file, again = tmp_path / "providers.yaml", tmp_path / "before.yaml"
    file.write_text(json.dumps({"providers": [{**listed[0], "priority": 3}, *listed[1:]]}))
    again.write_text(json.dumps({"providers": listed}))
    try:
        for answer in ("", "what?"):
            refused = at_a_terminal(product, answer, "providers", "apply", str(file))
            assert (refused.returncode, refused.stdout) == (1, "")
            assert refused.stderr == ("~ scripted  priority: 0 -> 3\nApply this? [y/N] aiserver: nothing was changed\n")
        assert admin(product, "providers", "list").stdout == before
        applied = at_a_terminal(product, "y", "providers", "apply", str(file))
        assert json.loads(applied.stdout.splitlines()[0])["priority"] == 3
    finally:
        admin(product, "providers", "apply", str(again), "--yes")
    assert admin(product, "providers", "list").stdout == before


def test_every_provider_is_checked_and_one_that_is_wrong_keeps_no_other_from_it(
    product: Product, tmp_path: Path
) -> None:
    before = admin(product, "providers", "list").stdout
    listed = [json.loads(line) for line in before.splitlines()]
    wrong = {**listed[0], "name": "a-wrong-one", "models": {"unheard-of": ""}}
    file, again = tmp_path / "providers.yaml", tmp_path / "before.yaml"
    file.write_text(json.dumps({"providers": [wrong, *listed]}))
    again.write_text(json.dumps({"providers": listed}))
    try:
        admin(product, "providers", "apply", str(file), "--yes")
        checked = admin_process(product, "providers", "check")
        assert [json.loads(line)["name"] for line in checked.stdout.splitlines()] == ["scripted", "scripted-gpu"]
        assert (checked.returncode, "a-wrong-one answers, but does not list unheard-of" in checked.stderr) == (1, True)
        assert admin_process(product, "providers", "check", "scripted").returncode == 0
    finally:
        admin(product, "providers", "apply", str(again), "--yes")
    assert admin(product, "providers", "list").stdout == before


def test_a_provider_is_disabled_and_enabled_by_name(product: Product) -> None:
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
        "aiserver: There is no provider nobody; `providers list` shows them\n",
    )


def test_a_failed_job_is_redriven_by_its_operator(product: Product) -> None:
    product.upstream.answer_with(400, b'{"error":{"message":"not today"}}')
    queued = product.http.post("/api/QueueOpenAiChatCompletion", json={"refId": "redriven", "request": CHAT}).json()
    assert product.ended("redriven")["state"] == "Failed"
    redriven = admin(product, "jobs", "redrive", str(queued["id"]))
    assert json.loads(redriven.stdout)["state"] == "Queued", redriven.stderr
    assert product.ended("redriven")["state"] == "Completed"
    product.upstream.answer_with(400, b'{"error":{"message":"not today"}}')
    other = product.http.post("/api/QueueOpenAiChatCompletion", json={"refId": "redriven-2", "request": CHAT}).json()
    assert product.ended("redriven-2")["state"] == "Failed"
    again = admin(product, "jobs", "redrive", str(queued["id"]), "4711", str(other["id"]))
    assert json.loads(again.stdout)["id"] == other["id"]  # those that cannot be keep no other from it
    assert again.returncode == 1
    assert again.stderr.splitlines() == [
        f"aiserver: job {queued['id']} is Completed; only a Failed one can be redriven",
        "aiserver: job 4711 is unknown, or past its time to live",
    ]
    assert product.ended("redriven-2")["state"] == "Completed"


def test_dead_callbacks_are_found_and_sent_again_by_their_operator(product: Product) -> None:
    answers = iter([410, 410, 200, 200])
    with receiver(lambda _: next(answers)) as hook:
        for name in ("dead-1", "dead-2"):
            ask = {"refId": name, "replyTo": hook.url, "request": CHAT}
            product.http.post("/api/QueueOpenAiChatCompletion", json=ask)
            product.ended(name)
        first = {hook.next(10).headers["webhook-id"] for _ in range(2)}
        port = ["--host", "127.0.0.1"]
        for _ in range(20):  # the receiver has answered before the table hears of it
            if len(listed := dead_callbacks(product, *port)) == 2:
                break
        assert {one["refId"] for one in listed} == {"dead-1", "dead-2"}
        assert {one["lastStatus"] for one in listed} == {410}
        again = admin(product, "callbacks", "redeliver", "--dead", *port)
        assert len(again.stdout.splitlines()) == 2, again.stderr
        second = {hook.next(10).headers["webhook-id"] for _ in range(2)}
    assert {one.rpartition("_")[0] for one in first} == {one.rpartition("_")[0] for one in second}
    assert {one.rpartition("_")[2] for one in second} == {"1"}
    both = admin(product, "callbacks", "redeliver", "--dead", "4711")
    assert (both.returncode, both.stdout) == (1, "")
    assert both.stderr.startswith("aiserver: callbacks redeliver takes ids of jobs, or --dead")


def dead_callbacks(product: Product, *which: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in admin(product, "callbacks", "list", *which).stdout.splitlines()]


def test_a_stack_that_is_not_there_is_told_in_a_line(product: Product) -> None:
    failed = admin_process(product, "--stack", "nowhere", "keys", "list")
    assert failed.returncode == 1
    assert failed.stderr.startswith("aiserver: stack nowhere cannot be read")
    assert "Traceback" not in failed.stderr


def test_a_deployment_is_probed_from_outside_and_what_differs_is_shown(product: Product) -> None:
    product.upstream.piece_s = 0.01
    try:
        probed = run("local.verify_deploy", URL=product.url + "/", KEY=product.key)
        asked = sorted(json.loads(sent.body)["max_tokens"] for sent in product.upstream.requests)

        product.upstream.answer_with(200, b"<html>")
        failed = run("local.verify_deploy", URL=product.url, KEY=product.key, MODEL="llama3:8b", SLOW_MODEL="llama3:8b")
    finally:
        product.upstream.piece_s = 0
    assert probed.returncode == 0, probed.stdout
    count = len(PROBES)
    assert f"{count - 1} of {count} as expected, 1 not checked, model gpt-4-turbo" in probed.stdout
    assert re.search(r"\n--    a long answer, not streamed .+ not checked: set SLOW_MODEL", probed.stdout)
    assert re.search(r"\nok    a streamed chat  .+ 20 events, \d+ reads, first after", probed.stdout)
    assert asked == [5] * 4 + [80]

    assert failed.returncode == 1
    (row,) = [line for line in failed.stdout.splitlines() if line.startswith("FAIL")]
    assert re.match(r"FAIL  a sync chat +200, choices +502 application/json", row)
    assert re.search(r"\n--    a long answer, not streamed .+ it took \d\.\d s only", failed.stdout)
    assert f"{count - 2} of {count}" in failed.stdout
    assert product.key not in probed.stdout + failed.stdout


def test_a_deployment_without_a_model_to_ask_or_a_key_is_told_in_a_line(product: Product) -> None:
    nobody = run("local.verify_deploy", URL=product.url, KEY="ak-nobody")
    assert (nobody.returncode, nobody.stdout.count("\n")) == (1, 1)
    assert run("local.verify_deploy", URL=product.url).returncode == 2


def test_the_demo_shows_every_step_and_ends_well() -> None:
    shown = run("local.demo")
    assert shown.returncode == 0, shown.stderr
    for told in (
        "SCRIPTED",
        "1. Ask now",
        "2. The same, streamed",
        "3. Ask later",
        "signature valid",
        "jobState Completed",
        "404 NotFound",
    ):
        assert told in shown.stdout
