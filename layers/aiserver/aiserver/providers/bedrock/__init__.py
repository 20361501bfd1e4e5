"""Amazon Bedrock's Converse API, by which it asks every model of its; aws/bedrock.py signs, and reads its frames.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference.html
"""

from aiserver.providers.bedrock.capabilities import WORDS
from aiserver.providers.bedrock.request import request
from aiserver.providers.bedrock.response import answer, error
from aiserver.providers.bedrock.stream import BedrockEvents
from aiserver.providers.translation.adapter import Vendor

BEDROCK = Vendor(WORDS, request, answer, BedrockEvents, error)  # its models are listed by another host
