"""Which upstream answers in `demo` and `dev`, and the sentence that says so aloud: never a silent fake.

The first that applies: the file PROVIDERS names; OPENAI_API_KEY; an Ollama on this machine; else the scripted provider.
"""

import json
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiserver.providers.catalogue import ALL_OPERATIONS, CATALOGUE
from local.ministack import CloudFailed
from local.scripted import MODELS, ScriptedProvider

OLLAMA = "http://127.0.0.1:11434"
OPENAI_MODEL = "gpt-4o-mini"  # cheap, and every account has it; OPENAI_MODEL names another
LOOK_S = 1.0
WORD_S = 0.04  # about as a small model on a laptop writes
DEMO_MODELS = ("llama3:8b", "gpt-4-turbo")


@dataclass(frozen=True)
class Upstream:
    """A providers.yaml, the environment its `api_key_var`s are read from, and what to say."""

    providers: str
    environment: Mapping[str, str]
    sentence: str


@contextmanager
def choose(environment: Mapping[str, str]) -> Generator[Upstream]:
    """The upstream for these settings; the scripted provider runs until the block ends. Raises: CloudFailed."""
    if file := environment.get("PROVIDERS"):
        try:
            text = Path(file).read_text(encoding="utf-8")
        except OSError as error:
            raise CloudFailed(f"PROVIDERS: {file} cannot be read: {error.strerror}") from error
        yield Upstream(text, environment, f"Answers come from the providers of {file}.")
    elif environment.get("OPENAI_API_KEY"):
        model = environment.get("OPENAI_MODEL", OPENAI_MODEL)
        base_url = environment.get("OPENAI_BASE_URL", CATALOGUE["openai"].base_url)
        models = {**dict.fromkeys(DEMO_MODELS, model), "*": ""}
        openai = {"name": "openai", "preset": "openai", "api_key_var": "OPENAI_API_KEY", "models": models}
        sentence = f"Answers come from OpenAI ({base_url}), {_aliases(model)}."
        yield _upstream({**openai, "base_url": base_url}, environment, sentence)
    elif model := ollama_model(OLLAMA):
        models = {**dict.fromkeys(DEMO_MODELS, model), "*": ""}
        ollama = {"name": "ollama", "preset": "ollama", "base_url": f"{OLLAMA}/v1", "models": models}
        yield _upstream(ollama, environment, f"Answers come from Ollama on this machine, {_aliases(model)}.")
    else:
        with ScriptedProvider(piece_s=WORD_S) as scripted:
            yield scripted_upstream(scripted)


def scripted_upstream(scripted: ScriptedProvider) -> Upstream:
    """The scripted provider, once for each job queue."""
    both = {"base_url": scripted.base_url, "operations": ALL_OPERATIONS}
    hosted = {**both, "name": "scripted", "models": dict.fromkeys(MODELS[:-1], "")}
    gpu = {**both, "name": "scripted-gpu", "queue": "gpu", "models": {MODELS[-1]: ""}}
    sentence = (
        "Answers are SCRIPTED: no model is behind them. "
        "Set OPENAI_API_KEY, run Ollama, or point PROVIDERS at a providers.yaml for real ones."
    )
    return _upstream(hosted, {}, sentence, gpu)


def _upstream(
    provider: Mapping[str, Any], environment: Mapping[str, str], sentence: str, *more: Mapping[str, Any]
) -> Upstream:
    return Upstream(json.dumps({"providers": [provider, *more]}), environment, sentence)  # JSON is YAML


def _aliases(model: str) -> str:
    return f"where {' and '.join(DEMO_MODELS)} are names for {model}"


def ollama_model(url: str) -> str | None:
    """The first model of the Ollama at `url`, if one runs and has any."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{url}/api/tags", timeout=LOOK_S) as response:
            models = json.load(response)["models"]
    except (OSError, ValueError, KeyError):
        return None
    return models[0]["name"] if models else None
