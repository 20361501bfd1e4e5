"""Selects the upstream of `demo` and `dev`, and describes it for the user: a scripted provider is always announced.

The first that applies: the file in PROVIDERS; OPENAI_API_KEY; an Ollama on this machine; else the scripted provider.
"""

import json
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiserver.operations import OPERATIONS
from aiserver.providers.catalogue import CATALOGUE
from local.ministack import CloudFailed
from local.scripted import MODELS, ScriptedProvider

OLLAMA = "http://127.0.0.1:11434"
OPENAI_MODEL = "gpt-4o-mini"  # low price, available to every account; OPENAI_MODEL selects another
PROBE_TIMEOUT_S = 1.0
CHUNK_DELAY_S = 0.04  # about the speed of a small model on a laptop
DEMO_MODELS = ("llama3:8b", "gpt-4-turbo")
# The names that AI Server's requests use, at OpenAI.
MEDIA_MODELS = {
    "speech-to-text": "whisper-1",
    "text-to-speech": {"model": "tts-1", "voice": "alloy"},
    "image-to-image": "gpt-image-2",
    "image-with-mask": "gpt-image-2",
    "image-to-text": OPENAI_MODEL,
}


@dataclass(frozen=True)
class Upstream:
    """A providers.yaml, the environment that contains its `api_key_var`s, and a description for the user."""

    providers: str
    environment: Mapping[str, str]
    description: str


@contextmanager
def choose(environment: Mapping[str, str]) -> Generator[Upstream]:
    """The upstream for these settings; the scripted provider runs until the block ends. Raises: CloudFailed."""
    if file := environment.get("PROVIDERS"):
        try:
            text = Path(file).read_text(encoding="utf-8")
        except OSError as error:
            raise CloudFailed(f"PROVIDERS: cannot read {file}: {error.strerror}") from error
        yield Upstream(text, environment, f"Using the providers in {file}.")
    elif environment.get("OPENAI_API_KEY"):
        model = environment.get("OPENAI_MODEL", OPENAI_MODEL)
        base_url = environment.get("OPENAI_BASE_URL", CATALOGUE["openai"].base_url)
        models = {**dict.fromkeys(DEMO_MODELS, model), **MEDIA_MODELS, "*": ""}
        openai = {"name": "openai", "preset": "openai", "api_key_var": "OPENAI_API_KEY", "models": models}
        description = f"Using OpenAI ({base_url}); {_aliases(model)}."
        yield _create_upstream({**openai, "base_url": base_url}, environment, description)
    elif model := ollama_model(OLLAMA):
        models = {**dict.fromkeys(DEMO_MODELS, model), "*": ""}
        ollama = {"name": "ollama", "preset": "ollama", "base_url": f"{OLLAMA}/v1", "models": models}
        yield _create_upstream(ollama, environment, f"Using Ollama on this machine; {_aliases(model)}.")
    else:
        with ScriptedProvider(chunk_delay_s=CHUNK_DELAY_S) as scripted:
            yield build_scripted_upstream(scripted)


def build_scripted_upstream(scripted: ScriptedProvider) -> Upstream:
    """The scripted provider, once for each job queue."""
    common = {"base_url": scripted.base_url, "operations": list(OPERATIONS)}
    hosted = {**common, "name": "scripted", "models": dict.fromkeys(MODELS[:-1], "")}
    gpu = {**common, "name": "scripted-gpu", "queue": "gpu", "models": {MODELS[-1]: ""}}
    description = (
        "Responses are SCRIPTED: no real model is used. "
        "To use one, set OPENAI_API_KEY, run Ollama, or set PROVIDERS to a providers.yaml."
    )
    return _create_upstream(hosted, {}, description, gpu)


def _create_upstream(
    provider: Mapping[str, Any], environment: Mapping[str, str], description: str, *further_providers: Mapping[str, Any]
) -> Upstream:
    providers = json.dumps({"providers": [provider, *further_providers]})  # JSON is YAML
    return Upstream(providers, environment, description)


def _aliases(model: str) -> str:
    return f"{' and '.join(DEMO_MODELS)} are aliases of {model}"


def ollama_model(url: str) -> str | None:
    """The first model of the Ollama at `url`; None if it is not running or has no model."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # without the environment's proxies
    try:
        with opener.open(f"{url}/api/tags", timeout=PROBE_TIMEOUT_S) as response:
            models = json.load(response)["models"]
    except (OSError, ValueError, KeyError):
        return None
    return models[0]["name"] if models else None
