"""Amazon Bedrock's Converse API, by which it asks every model of its; aws/bedrock.py signs, and reads its frames.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference.html
"""

from aiserver.errors import UpstreamAnswer
from aiserver.providers.bedrock.answers import answer, error
from aiserver.providers.bedrock.events import BedrockEvents
from aiserver.providers.bedrock.requests import request
from aiserver.providers.bedrock.words import WORDS
from aiserver.providers.exchange import Asked
from aiserver.providers.translation.chat import Chat
from aiserver.providers.translation.vendor import Born, Told


class Bedrock:
    """vendor.Vendor. Its models are listed at another host, so the catalogue's row lists none and nobody asks."""

    words = WORDS

    def request(self, chat: Chat) -> Asked:
        return request(chat)

    def answer(self, body: bytes, born: Born) -> Told:
        return answer(body, born)

    def events(self, chat: Chat, born: Born) -> BedrockEvents:
        return BedrockEvents(chat, born)

    def error(self, said: UpstreamAnswer) -> UpstreamAnswer:
        return error(said)

    def models(self, after: str | None) -> Asked:
        raise NotImplementedError

    def listed(self, page: bytes) -> tuple[list[str], str | None]:
        raise NotImplementedError
