"""The examples of the pages in docs/use run as they are printed."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import drawing
from local.choose_upstream import build_scripted_upstream
from local.cloud import Cloud
from local.scripted import ScriptedProvider

AUDIO, IMAGES = "audio", "images"
PNG = b"\x89PNG"
NODE_FOLDER = Path("tests/flow/node")
TRANSCRIPT = "This is a scripted transcript."


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with ScriptedProvider() as scripted, Cloud(build_scripted_upstream(scripted)) as running:
        yield running


def example(page: str, heading: str) -> str:
    """The code block below a heading of the page."""
    section = Path(f"docs/use/{page}.md").read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    match = re.search(r"```\w+\n(.*?)```", section, re.DOTALL)
    assert match, heading
    return match[1]


def run(command: list[str], code: str, folder: Path, cloud: Cloud) -> str:
    environment = os.environ | {"B": cloud.base_url, "KEY": cloud.keys.api_key}
    completed = subprocess.run(
        [*command, code], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


PYTHON_START = "import os\nB, KEY = os.environ['B'], os.environ['KEY']\n"


def test_python_example_speaks_and_transcribes(cloud: Cloud, tmp_path: Path) -> None:
    code = PYTHON_START + example(AUDIO, "OpenAI's Python SDK")
    assert TRANSCRIPT in run([sys.executable, "-c"], code, tmp_path, cloud)


def test_node_example_transcribes(cloud: Cloud, tmp_path: Path) -> None:
    if not (NODE_FOLDER / "node_modules" / "openai").is_dir():
        pytest.skip("requires Node.js 18 or later")
    wav = tmp_path / "hello.wav"
    speak = f"curl -s {cloud.base_url}/v1/audio/speech -H 'Authorization: Bearer {cloud.keys.api_key}' " + (
        f"""-d '{{"model": "tts-1", "input": "Hello"}}' -o {wav}"""
    )
    run(["sh", "-c"], speak, tmp_path, cloud)
    code = "const { B, KEY } = process.env;\n" + example(AUDIO, "OpenAI's Node SDK").replace('"hello.wav"', f'"{wav}"')
    assert TRANSCRIPT in run(["node", "--input-type=module", "-e"], code, NODE_FOLDER, cloud)


def test_curl_example_speaks_transcribes_and_queues(cloud: Cloud, tmp_path: Path) -> None:
    output = run(["sh", "-c"], example(AUDIO, "curl"), tmp_path, cloud)
    assert TRANSCRIPT in output
    assert '"statusUrl"' in output
    assert '"fileName"' in output


def test_typed_client_example_speaks_and_transcribes(cloud: Cloud, tmp_path: Path) -> None:
    speak = f"curl -s {cloud.base_url}/v1/audio/speech -H 'Authorization: Bearer {cloud.keys.api_key}' " + (
        """-d '{"model": "tts-1", "input": "Hello"}' -o hello.wav"""
    )
    run(["sh", "-c"], speak, tmp_path, cloud)
    output = run([sys.executable, "-c"], PYTHON_START + example(AUDIO, "AI Server's typed client"), tmp_path, cloud)
    url, transcript = output.splitlines()
    assert url.startswith(f"{cloud.base_url}/artifacts/")
    assert transcript.startswith(TRANSCRIPT)


def test_python_example_draws_and_edits(cloud: Cloud, tmp_path: Path) -> None:
    code = PYTHON_START + example(IMAGES, "OpenAI's Python SDK")
    assert run([sys.executable, "-c"], code, tmp_path, cloud).startswith("1 ")
    assert (tmp_path / "llama.png").read_bytes().startswith(PNG)


def test_node_example_streams_and_edits(cloud: Cloud, tmp_path: Path) -> None:
    if not (NODE_FOLDER / "node_modules" / "openai").is_dir():
        pytest.skip("requires Node.js 18 or later")
    png = save_image(tmp_path)
    code = example(IMAGES, "OpenAI's Node SDK").replace('createReadStream("llama.png")', f'createReadStream("{png}")')
    code = "const { B, KEY } = process.env;\n" + code
    lines = run(["node", "--input-type=module", "-e"], code, NODE_FOLDER, cloud).split()
    assert lines == ["image_generation.partial_image", "image_generation.completed", "1"]


def test_curl_example_draws_queues_and_describes(cloud: Cloud, tmp_path: Path) -> None:
    save_image(tmp_path)
    lines = run(["sh", "-c"], example(IMAGES, "curl"), tmp_path, cloud).splitlines()
    for line, text in zip(lines, ("b64_json", "/artifacts/", '"statusUrl"', '"textOutputs"'), strict=True):
        assert text in line


def test_typed_client_example_draws_and_describes(cloud: Cloud, tmp_path: Path) -> None:
    output = run([sys.executable, "-c"], PYTHON_START + example(IMAGES, "AI Server's typed client"), tmp_path, cloud)
    assert output.startswith("This is a scripted response.")
    assert (tmp_path / "llama.png").read_bytes().startswith(PNG)


def save_image(folder: Path) -> Path:
    """The file that the example reads, as another example writes it."""
    path = folder / "llama.png"
    path.write_bytes(drawing.encode_image(drawing.draw_prompt("A happy llama", (512, 512), 0), "png"))
    return path
