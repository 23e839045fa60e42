"""Classifiers on any backbone: where they start, and how they are exported."""
