"""Anthropic's Messages API, and whatever else speaks it.

Source: https://platform.claude.com/docs/en/api/messages
"""

from aiserver.errors import UpstreamAnswer
from aiserver.providers.anthropic.answers import answer, error, listed
from aiserver.providers.anthropic.events import AnthropicEvents
from aiserver.providers.anthropic.requests import models, request
from aiserver.providers.anthropic.words import WORDS
from aiserver.providers.exchange import Asked
from aiserver.providers.translation.chat import Chat
from aiserver.providers.translation.vendor import Born, Told


class Anthropic:
    """vendor.Vendor"""

    words = WORDS

    def request(self, chat: Chat) -> Asked:
        return request(chat)

    def answer(self, body: bytes, born: Born) -> Told:
        return answer(body, born)

    def events(self, chat: Chat, born: Born) -> AnthropicEvents:
        return AnthropicEvents(chat, born)

    def error(self, said: UpstreamAnswer) -> UpstreamAnswer:
        return error(said)

    def models(self, after: str | None) -> Asked:
        return models(after)

    def listed(self, page: bytes) -> tuple[list[str], str | None]:
        return listed(page)
