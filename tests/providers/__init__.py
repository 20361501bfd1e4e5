"""Calls to providers over real HTTP on loopback: what goes out, what comes back, what each fault means."""
