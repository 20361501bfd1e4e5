"""AI Server as cloud functions: one API for many models."""
