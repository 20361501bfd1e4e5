"""The gateway's AWS calls, evaluated against the IAM policies of the function that makes them.

`recorder` records each boto3 call that a handler makes in this process, `requests` maps it to IAM requests,
`policies` holds what template.yaml allows, and `simulator` decides, with @cloud-copilot/iam-simulate.
"""
