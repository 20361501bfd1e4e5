"""Google's Gemini API: generateContent and streamGenerateContent.

Source: https://ai.google.dev/api/generate-content
"""

from aiserver.providers.google.answers import answer
from aiserver.providers.google.errors import error
from aiserver.providers.google.events import GoogleEvents
from aiserver.providers.google.models import listed, models
from aiserver.providers.google.requests import request
from aiserver.providers.google.words import WORDS
from aiserver.providers.translation.vendor import Listing, Vendor

GOOGLE = Vendor(WORDS, request, answer, GoogleEvents, error, Listing(models, listed))
