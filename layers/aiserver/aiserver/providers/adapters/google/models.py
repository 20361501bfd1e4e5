"""Gemini's model list, model paths and model generations.

Source: https://ai.google.dev/api/models
"""

from urllib.parse import quote

import msgspec

from aiserver.providers.adapters.google.capabilities import MODELS_BEFORE_3
from aiserver.providers.request import ProviderRequest

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


def list_models_request(page_token: str | None) -> ProviderRequest:
    return ProviderRequest("GET", PATH + (f"&pageToken={quote(page_token, safe='')}" if page_token else ""), None)


def parse_models(page: bytes) -> tuple[list[str], str | None]:
    """The ids of the models that generate content, and the token of the next page."""
    model_page = _model_page.decode(page)
    models = [model for model in model_page.models if GENERATE_METHOD in model.supported_generation_methods]
    return [model.name.removeprefix(MODEL) for model in models], model_page.next_page_token or None


def model_path(model: str) -> str:
    """The path of a model, without the method."""
    collection = next((known for known in COLLECTIONS if model.startswith(known)), "")
    return f"/{collection or MODEL}{quote(model.removeprefix(collection), safe='')}"


def is_before_3(model: str) -> bool:
    return model.removeprefix(MODEL).startswith(MODELS_BEFORE_3)


def needs_signatures(model: str) -> bool:
    """Whether the model rejects tool calls without a signature, as Gemini 3 and later do."""
    return model.removeprefix(MODEL).startswith("gemini-") and not is_before_3(model)
