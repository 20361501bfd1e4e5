"""Anthropic's Messages API, and servers compatible with it.

Source: https://platform.claude.com/docs/en/api/messages
"""

from aiserver.providers.adapters.anthropic.capabilities import CAPABILITIES
from aiserver.providers.adapters.anthropic.errors import map_error
from aiserver.providers.adapters.anthropic.request import build_request, list_models_request
from aiserver.providers.adapters.anthropic.response import map_response, parse_models
from aiserver.providers.adapters.anthropic.stream import AnthropicEventMapper
from aiserver.providers.adapters.base.adapter import ChatTranslator, ModelPages

ANTHROPIC = ChatTranslator(
    CAPABILITIES,
    build_request,
    map_response,
    AnthropicEventMapper,
    map_error,
    ModelPages(list_models_request, parse_models),
)
