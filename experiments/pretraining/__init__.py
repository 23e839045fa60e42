"""What makes a CLIP of images with captions, and what it knows then."""
