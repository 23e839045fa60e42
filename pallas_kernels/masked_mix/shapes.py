"""Shapes that masked_mix is tested and timed on."""

from pallas_kernels import clip_shapes

# Timed, and lowered for CUDA by the tests.
NAMED = clip_shapes.CLIP

# Run by the tests in the interpreter: edges, and more tiles than one of rows
# that end inside a tile.
SMALL = clip_shapes.EDGES | {"tiles": (5, 768)}
