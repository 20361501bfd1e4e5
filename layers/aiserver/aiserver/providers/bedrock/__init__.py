"""Amazon Bedrock's Converse API, by which it asks every model of its; aws/bedrock.py signs, and reads its frames.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference.html
"""

from aiserver.providers.bedrock.answers import answer, error
from aiserver.providers.bedrock.events import BedrockEvents
from aiserver.providers.bedrock.requests import request
from aiserver.providers.bedrock.words import WORDS
from aiserver.providers.translation.vendor import Vendor

BEDROCK = Vendor(WORDS, request, answer, BedrockEvents, error)  # its models are listed by another host
