"""The job record, its state machine as one table of transitions, and the ports it needs."""
