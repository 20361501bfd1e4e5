"""Amazon Bedrock's Converse API, one protocol for all its models; aws/bedrock.py signs requests and decodes frames.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference.html
"""

from aiserver.providers.bedrock.capabilities import CAPABILITIES
from aiserver.providers.bedrock.request import build_request
from aiserver.providers.bedrock.response import map_error, map_response
from aiserver.providers.bedrock.stream import BedrockEventMapper
from aiserver.providers.translation.adapter import Adapter

BEDROCK = Adapter(
    CAPABILITIES, build_request, map_response, BedrockEventMapper, map_error
)  # another host lists its models
