"""The models that Gemini's API lists, and how the name of one is written in a path.

Source: https://ai.google.dev/api/models
"""

from urllib.parse import quote

import msgspec

from aiserver.providers.google.capabilities import BEFORE_3
from aiserver.providers.http import ProviderRequest

PATH = "/models?pageSize=1000"
GENERATE_METHOD = "generateContent"
MODEL = "models/"
COLLECTIONS = (MODEL, "tunedModels/")


class _Model(msgspec.Struct, rename="camel"):
    name: str
    supported_generation_methods: list[str] = []


class _ModelPage(msgspec.Struct, rename="camel"):
    models: list[_Model] = []
    next_page_token: str | None = None


_model_page = msgspec.json.Decoder(_ModelPage)


def list_models_request(after: str | None) -> ProviderRequest:
    return ProviderRequest("GET", PATH + (f"&pageToken={quote(after, safe='')}" if after else ""), None)


def parse_models(page: bytes) -> tuple[list[str], str | None]:
    """The models that write, and after what the next page begins."""
    told = _model_page.decode(page)
    writers = [model for model in told.models if GENERATE_METHOD in model.supported_generation_methods]
    return [model.name.removeprefix(MODEL) for model in writers], told.next_page_token or None


def model_path(model: str) -> str:
    """Where a model is asked, but for the method."""
    collection = next((known for known in COLLECTIONS if model.startswith(known)), "")
    return f"/{collection or MODEL}{quote(model.removeprefix(collection), safe='')}"


def is_before_3(model: str) -> bool:
    return model.removeprefix(MODEL).startswith(BEFORE_3)


def needs_signatures(model: str) -> bool:
    """Whether it refuses calls of tools without a signature, as Gemini does since its third generation."""
    return model.removeprefix(MODEL).startswith("gemini-") and not is_before_3(model)
