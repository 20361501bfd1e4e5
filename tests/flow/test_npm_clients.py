"""The npm clients (@servicestack/client, openai), as their users have them. Needs Node 18 or newer."""

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
def test_the_npm_clients_run_the_main_job(product: Product) -> None:
    command = ["node", "clients.mjs", product.url, product.key, product.upstream.base_url]
    ran = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    for one in (told["sync"], told["api"], told["status"]["result"]):
        assert "scripted answer" in one["choices"][0]["message"]["content"]
    assert told["queued"]["refId"] == "npm-1"
    assert told["queued"]["id"] == told["waited"]["result"]["id"] == told["status"]["jobId"]
    assert told["waited"]["result"]["state"] == told["status"]["jobState"] == "Completed"
    assert told["error"]["errorCode"] == "NotFound"
    assert told["ours"] == told["elsewhere"] == told["typedOurs"] == told["typedElsewhere"]
    assert {json.loads(sent.body)["max_tokens"] for sent in product.upstream.requests} == {50}
