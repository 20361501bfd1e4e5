"""The gateway with two drawing servers as providers, and a scripted one for responses that they do not send."""

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from local.choose_upstream import Upstream
from local.cloud import Cloud
from local.scripted import ScriptedProvider
from tests.flow.conftest import Product
from tests.images.drawing_server import DrawingServer

IMAGES, EDITS, CHAT = "images.generations", "images.edits", "chat.completions"
STUDIO_MODEL, OPENAI_MODEL = "studio-image", "gpt-image-2"
GPU_URL_MODEL, HOSTED_URL_MODEL = "gpu-image", "hosted-image"  # their images are URLs
SCRIPTED_MODEL, FAILOVER_MODEL = "scripted-image", "failover-image"
SCRIPTED_UPSTREAM_MODEL, BUSY_UPSTREAM_MODEL, BACKUP_UPSTREAM_MODEL = "upstream-image", "busy-image", "backup-image"
VISION_UPSTREAM_MODEL = "upstream-vision"
DEFAULT_MODELS = ("image-to-image", "image-with-mask")  # of AI Server's requests
PROVIDER_KEY = "drawing-key"


@dataclass
class ImageProduct(Product):
    """A running gateway and its providers: a self-hosted server, one with OpenAI's rules, and a scripted one."""

    studio: DrawingServer
    openai: DrawingServer

    def call_counts(self) -> tuple[int, int, int]:
        return len(self.studio.calls), len(self.openai.calls), len(self.upstream.requests)


@contextmanager
def running_image_product(parameters: Mapping[str, str] | None = None) -> Generator[ImageProduct]:
    """The gateway as users start it, until the block ends. `parameters` are those of the template."""
    with (
        DrawingServer(api_key=PROVIDER_KEY) as studio,
        DrawingServer(api_key=PROVIDER_KEY, is_strict=True) as openai,
        ScriptedProvider() as scripted,
        Cloud(
            Upstream(_providers(studio, openai, scripted), {"PROVIDER_KEY": PROVIDER_KEY}, ""), parameters=parameters
        ) as cloud,
        httpx.Client(
            base_url=cloud.base_url,
            headers={"authorization": f"Bearer {cloud.keys.api_key}"},
            timeout=60,
            trust_env=False,
        ) as http,
    ):
        yield ImageProduct(cloud, scripted, http, studio, openai)


def _providers(studio: DrawingServer, openai: DrawingServer, scripted: ScriptedProvider) -> str:
    images = {"operations": [IMAGES, EDITS]}
    drawing = {**images, "base_url": studio.base_url, "api_key_var": "PROVIDER_KEY"}
    urls = {"model": studio.model, "response_format": "url"}
    fake = {**images, "base_url": scripted.base_url}
    studio_models = dict.fromkeys((STUDIO_MODEL, *DEFAULT_MODELS), studio.model)
    openai_settings = {"preset": "openai", "base_url": openai.base_url, "api_key_var": "PROVIDER_KEY"}
    vision = {"base_url": scripted.base_url, "operations": [CHAT]}
    providers: list[dict[str, Any]] = [
        {**drawing, "name": "studio", "models": studio_models},
        {**drawing, "name": "gpu-studio", "queue": "gpu", "models": {GPU_URL_MODEL: urls}},
        {**drawing, "name": "hosted-studio", "models": {HOSTED_URL_MODEL: urls}},
        {**openai_settings, "name": "openai", "models": {OPENAI_MODEL: "", "my-openai": OPENAI_MODEL}},
        {**vision, "name": "vision", "models": {"image-to-text": VISION_UPSTREAM_MODEL}},
        {**fake, "name": "scripted", "models": {SCRIPTED_MODEL: SCRIPTED_UPSTREAM_MODEL}},
        {**fake, "name": "busy", "models": {FAILOVER_MODEL: BUSY_UPSTREAM_MODEL}, "priority": 1},
        {**fake, "name": "backup", "models": {FAILOVER_MODEL: BACKUP_UPSTREAM_MODEL}},
    ]
    return json.dumps({"providers": providers})
