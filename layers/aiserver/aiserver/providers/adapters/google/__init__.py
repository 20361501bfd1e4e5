"""Google's Gemini API: generateContent and streamGenerateContent.

Source: https://ai.google.dev/api/generate-content
"""

from aiserver.providers.adapters.base.adapter import ChatTranslator, ModelPages
from aiserver.providers.adapters.google.capabilities import CAPABILITIES
from aiserver.providers.adapters.google.errors import map_error
from aiserver.providers.adapters.google.models import list_models_request, parse_models
from aiserver.providers.adapters.google.request import build_request
from aiserver.providers.adapters.google.response import map_response
from aiserver.providers.adapters.google.stream import GoogleEventMapper

GOOGLE = ChatTranslator(
    CAPABILITIES,
    build_request,
    map_response,
    GoogleEventMapper,
    map_error,
    ModelPages(list_models_request, parse_models),
)
