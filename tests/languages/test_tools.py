"""npm's @servicestack/cli adds and updates the types of each language that it knows, over HTTP from the gateway."""

import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from local.scripted import ScriptedProvider
from tests.flow.conftest import Product, product, running_product
from tests.languages.test_programs import pytestmark, require, require_tools

__all__ = ["product", "pytestmark", "running_product"]

# The name of the tool's command, by language.
COMMANDS = {
    "csharp": "cs-ref",
    "typescript": "ts-ref",
    "typescript.d": "tsd-ref",
    "swift": "swift-ref",
    "java": "java-ref",
    "kotlin": "kt-ref",
    "vbnet": "vb-ref",
    "fsharp": "fs-ref",
    "dart": "dart-ref",
}
EXTENSIONS = {"csharp": "cs", "typescript": "ts", "typescript.d": "d.ts", "kotlin": "kt", "vbnet": "vb", "fsharp": "fs"}
INCLUDE = "IncludeTypes: OpenAiChatCompletion.*"


def run_tool(language: str, folder: Path, *arguments: str) -> None:
    """Run the command of a language. It sends statistics to its authors unless the environment forbids it."""
    node = require("node", "Node.js 18 or newer")
    command = require_tools("cli") / "node_modules/@servicestack/cli/bin" / f"{COMMANDS[language]}.js"
    completed = subprocess.run(
        [node, str(command), *arguments],
        cwd=folder,
        env=os.environ | {"SERVICESTACK_TELEMETRY_OPTOUT": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr + completed.stdout


def file_name(language: str) -> str:
    return f"dtos.{EXTENSIONS.get(language, language)}"


def include_types(text: str, language: str) -> str:
    """The file with an option set, as a user edits its header."""
    option = {"vbnet": "'''IncludeTypes: ", "python": "#IncludeTypes: "}.get(language, "//IncludeTypes: ")
    assert option in text
    return text.replace(option, f"'{INCLUDE}" if language == "vbnet" else INCLUDE, 1)


@pytest.mark.parametrize("language", COMMANDS)
def test_tool_adds_and_updates_the_types(product: Product, tmp_path: Path, language: str) -> None:
    path = tmp_path / file_name(language)
    url = f"{product.url}/types/{language}"
    run_tool(language, tmp_path, product.url)
    assert path.read_text() == httpx.get(url, trust_env=False).text
    path.write_text(include_types(path.read_text(), language))
    run_tool(language, tmp_path, path.name)
    expected = httpx.get(url, params={"IncludeTypes": "OpenAiChatCompletion.*"}, trust_env=False).text
    assert path.read_text() == expected
    assert "CancelJob" not in expected


@pytest.mark.parametrize("language", COMMANDS)
def test_tool_updates_with_a_short_url_that_keeps_the_stage(product: Product, tmp_path: Path, language: str) -> None:
    """API Gateway refuses long URLs; a tool that misses the end of the header sends the whole file."""
    text = httpx.get(f"{product.url}/types/{language}", trust_env=False).text
    with ScriptedProvider() as server:
        stage = f"{server.base_url}/Prod"
        server.respond_with(200, text.encode(), {"content-type": "text/plain"})
        path = tmp_path / file_name(language)
        path.write_text(include_types(text.replace(product.url, stage), language))
        run_tool(language, tmp_path, path.name)
        (request,) = server.requests
    assert request.path == f"{urlsplit(stage).path}/types/{language}?IncludeTypes=OpenAiChatCompletion.*"
