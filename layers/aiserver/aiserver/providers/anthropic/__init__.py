"""Anthropic's Messages API, and whatever else speaks it.

Source: https://platform.claude.com/docs/en/api/messages
"""

from aiserver.providers.anthropic.answers import answer, error, listed
from aiserver.providers.anthropic.events import AnthropicEvents
from aiserver.providers.anthropic.requests import models, request
from aiserver.providers.anthropic.words import WORDS
from aiserver.providers.translation.vendor import Listing, Vendor

ANTHROPIC = Vendor(WORDS, request, answer, AnthropicEvents, error, Listing(models, listed))
