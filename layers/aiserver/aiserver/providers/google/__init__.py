"""Google's Gemini API: generateContent and streamGenerateContent.

Source: https://ai.google.dev/api/generate-content
"""

from aiserver.errors import UpstreamAnswer
from aiserver.providers.exchange import Asked
from aiserver.providers.google.answers import answer
from aiserver.providers.google.errors import error
from aiserver.providers.google.events import GoogleEvents
from aiserver.providers.google.models import listed, models
from aiserver.providers.google.requests import request
from aiserver.providers.google.words import WORDS
from aiserver.providers.translation.chat import Chat
from aiserver.providers.translation.vendor import Born, Told


class Google:
    """vendor.Vendor"""

    words = WORDS

    def request(self, chat: Chat) -> Asked:
        return request(chat)

    def answer(self, body: bytes, born: Born) -> Told:
        return answer(body, born)

    def events(self, chat: Chat, born: Born) -> GoogleEvents:
        return GoogleEvents(chat, born)

    def error(self, said: UpstreamAnswer) -> UpstreamAnswer:
        return error(said)

    def models(self, after: str | None) -> Asked:
        return models(after)

    def listed(self, page: bytes) -> tuple[list[str], str | None]:
        return listed(page)
