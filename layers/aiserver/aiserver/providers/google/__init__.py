"""Google's Gemini API: generateContent and streamGenerateContent.

Source: https://ai.google.dev/api/generate-content
"""

from aiserver.providers.google.capabilities import CAPABILITIES
from aiserver.providers.google.errors import map_error
from aiserver.providers.google.models import list_models_request, parse_models
from aiserver.providers.google.request import build_request
from aiserver.providers.google.response import map_response
from aiserver.providers.google.stream import GoogleEventMapper
from aiserver.providers.translation.adapter import Adapter, ModelPages

GOOGLE = Adapter(
    CAPABILITIES,
    build_request,
    map_response,
    GoogleEventMapper,
    map_error,
    ModelPages(list_models_request, parse_models),
)
