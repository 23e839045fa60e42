"""Runs that are killed, damaged files, and what becomes of them."""
