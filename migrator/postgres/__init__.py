"""Connecting, timeouts, driver errors to ours, questions to the catalogue."""
