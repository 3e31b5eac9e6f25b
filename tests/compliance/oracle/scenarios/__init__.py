"""Scenarios, one theme a file."""
