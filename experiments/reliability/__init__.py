"""Runs that are killed, and how they end."""
