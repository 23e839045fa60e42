"""Benchmarks: each prints a table and may write its figures as flat JSON."""
