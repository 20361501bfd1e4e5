"""Anthropic's Messages API, and whatever else speaks it.

Source: https://platform.claude.com/docs/en/api/messages
"""

from aiserver.providers.anthropic.capabilities import WORDS
from aiserver.providers.anthropic.request import models, request
from aiserver.providers.anthropic.response import answer, error, listed
from aiserver.providers.anthropic.stream import AnthropicEvents
from aiserver.providers.translation.adapter import Listing, Vendor

ANTHROPIC = Vendor(WORDS, request, answer, AnthropicEvents, error, Listing(models, listed))
