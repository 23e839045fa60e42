"""pack: a dense array to its active entries, scaled by 1/s."""
