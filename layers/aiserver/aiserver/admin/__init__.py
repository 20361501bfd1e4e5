"""Operator commands, run with the operator's AWS credentials. There is no admin HTTP route to attack."""
