"""Google's Gemini API: generateContent and streamGenerateContent.

Source: https://ai.google.dev/api/generate-content
"""

from aiserver.providers.google.capabilities import WORDS
from aiserver.providers.google.errors import error
from aiserver.providers.google.models import listed, models
from aiserver.providers.google.request import request
from aiserver.providers.google.response import answer
from aiserver.providers.google.stream import GoogleEvents
from aiserver.providers.translation.adapter import Listing, Vendor

GOOGLE = Vendor(WORDS, request, answer, GoogleEvents, error, Listing(models, listed))
