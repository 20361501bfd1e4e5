"""Amazon Bedrock's Converse API, one protocol for all its models; aws/bedrock.py signs requests and decodes frames.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference.html
"""

from aiserver.providers.adapters.base.adapter import ChatTranslator
from aiserver.providers.adapters.bedrock.capabilities import CAPABILITIES
from aiserver.providers.adapters.bedrock.errors import map_error
from aiserver.providers.adapters.bedrock.request import build_request
from aiserver.providers.adapters.bedrock.response import map_response
from aiserver.providers.adapters.bedrock.stream import BedrockEventMapper

BEDROCK = ChatTranslator(
    CAPABILITIES, build_request, map_response, BedrockEventMapper, map_error
)  # another host lists its models
