"""Training, evaluation and the demo: what runs the library on data."""
