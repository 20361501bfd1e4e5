"""The npm clients (@servicestack/client, openai), as their users install them. Needs Node 18 or newer."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.flow.conftest import Product

NODE = Path(__file__).parent / "node"
needs_node = pytest.mark.skipif(
    shutil.which("node") is None or not (NODE / "node_modules").is_dir(),
    reason="the npm clients need Node 18 or newer; `make test` installs them where it finds one",
)


@needs_node
def test_npm_clients_run_chats_and_jobs(product: Product) -> None:
    command = ["node", "clients.mjs", product.url, product.key, product.upstream.base_url]
    completed = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=60, check=False)
    assert completed.returncode == 0, completed.stderr
    output = json.loads(completed.stdout)
    for chat in (output["sync"], output["api"], output["status"]["result"]):
        assert "scripted response" in chat["choices"][0]["message"]["content"]
    assert output["queued"]["refId"] == "npm-1"
    assert output["queued"]["id"] == output["waited"]["result"]["id"] == output["status"]["jobId"]
    assert output["waited"]["result"]["state"] == output["status"]["jobState"] == "Completed"
    assert output["error"]["errorCode"] == "NotFound"
    assert output["ours"] == output["elsewhere"] == output["typedOurs"] == output["typedElsewhere"]
    assert {json.loads(request.body)["max_tokens"] for request in product.upstream.requests} == {50}
