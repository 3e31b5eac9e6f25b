"""Scenarios. Each file is a theme."""
