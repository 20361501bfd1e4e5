"""Processes die and messages go astray: the real handlers in a hostile world, over fakes and the embedded cloud."""
