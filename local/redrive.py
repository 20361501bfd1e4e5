"""Connects the embedded cloud's queues to their dead-letter queues: MiniStack's CloudFormation ignores RedrivePolicy.

Observed in 1.4.21: `_sqs_create` in services/cloudformation/provisioners.py reads five attributes, without this one.
"""

from __future__ import annotations

import json

from local import aws
from local.template import Template


def set_redrive_policies(template: Template, stack: str, endpoint_url: str) -> None:
    """Set the template's RedrivePolicy on each deployed queue."""
    sqs = aws.client("sqs", endpoint_url)
    resources = aws.client("cloudformation", endpoint_url).describe_stack_resources(StackName=stack)["StackResources"]
    urls = {description["LogicalResourceId"]: description["PhysicalResourceId"] for description in resources}
    for logical_id, resource in template.transformed["Resources"].items():
        if resource["Type"] == "AWS::SQS::Queue" and (policy := resource["Properties"].get("RedrivePolicy")):
            target_url = urls[policy["deadLetterTargetArn"]["Fn::GetAtt"][0]]
            attributes = sqs.get_queue_attributes(QueueUrl=target_url, AttributeNames=["QueueArn"])["Attributes"]
            redrive_policy = json.dumps({**policy, "deadLetterTargetArn": attributes["QueueArn"]})
            sqs.set_queue_attributes(QueueUrl=urls[logical_id], Attributes={"RedrivePolicy": redrive_policy})
