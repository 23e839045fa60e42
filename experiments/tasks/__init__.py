"""What is trained on and measured."""
