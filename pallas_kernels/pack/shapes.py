"""Shapes that pack is tested and timed on."""

from pallas_kernels import clip_leaves

# Timed, and lowered for CUDA by the tests.
NAMED = clip_leaves.CLIP

# Run by the tests in the interpreter: edges, and more blocks than one of rows
# that end inside a block.
SMALL = clip_leaves.EDGES | {"blocks": (9, 768)}
