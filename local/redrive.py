"""Gives the embedded cloud's queues their dead-letter queues: MiniStack's CloudFormation leaves RedrivePolicy out.

Seen in 1.4.21: `_sqs_create` of its services/cloudformation/provisioners.py takes five attributes, and not this one.
"""

from __future__ import annotations

import json

from local import aws
from local.template import Template


def set_redrive_policies(template: Template, stack: str, endpoint_url: str) -> None:
    """What the template says of each queue's dead letters, set on the deployed queue."""
    sqs = aws.client("sqs", endpoint_url)
    resources = aws.client("cloudformation", endpoint_url).describe_stack_resources(StackName=stack)["StackResources"]
    urls = {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in resources}
    for logical_id, resource in template.transformed["Resources"].items():
        if resource["Type"] == "AWS::SQS::Queue" and (policy := resource["Properties"].get("RedrivePolicy")):
            dead = urls[policy["deadLetterTargetArn"]["Fn::GetAtt"][0]]
            arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
            told = json.dumps({**policy, "deadLetterTargetArn": arn})
            sqs.set_queue_attributes(QueueUrl=urls[logical_id], Attributes={"RedrivePolicy": told})
