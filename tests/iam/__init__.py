"""The product's AWS calls, judged by the IAM policies of the function that makes them.

`recorder` notes each boto3 call that a handler makes in this process, `requests` says what IAM is asked for it,
`policies` what template.yaml allows, and `simulator` decides, with @cloud-copilot/iam-simulate.
"""
