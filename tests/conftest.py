"""What all tests share: no test reaches beyond this machine, or sees the developer's keys."""

import os
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

GUARD = Path(__file__).parent / "guard"
# Run by its path: a system's Python may have imported a sitecustomize of its own (Debian's and Ubuntu's do).
runpy.run_path(str(GUARD / "sitecustomize.py"))

DEVELOPERS = ("AWS_", "OPENAI_", "OLLAMA_", "LANGCHAIN_", "LANGSMITH_")
for name in list(os.environ):
    if name.startswith(DEVELOPERS) or name in ("PROVIDERS", "STATE_DIR", "STRICT_CALLBACKS"):
        del os.environ[name]
os.environ["PYTHONPATH"] = str(GUARD)  # children install the guard, too

from local.ministack import running  # noqa: E402  reads the environment above


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of an embedded cloud without a stack."""
    with running(tmp_path_factory.mktemp("ministack")) as endpoint_url:
        yield endpoint_url
