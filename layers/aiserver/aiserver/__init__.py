"""AI Server as cloud functions: one API before many models."""
