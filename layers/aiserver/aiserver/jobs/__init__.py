"""A job's life: its record, its states as one table of transitions, and the ports it needs."""
