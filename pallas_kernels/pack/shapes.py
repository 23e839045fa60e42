"""Shapes that pack is tested and timed on."""

from pallas_kernels import clip_shapes

# Timed, and lowered for CUDA by the tests.
NAMED = clip_shapes.CLIP

# Run by the tests in the interpreter: edges, and more blocks than one of rows
# that end inside a block.
SMALL = clip_shapes.EDGES | {"blocks": (9, 768)}
