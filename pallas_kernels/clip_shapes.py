"""Shapes of real CLIP leaves, and shapes at the edges of what is allowed."""

Shapes = dict[str, tuple[int, ...]]

# Kernels ``[in, out]`` of the transformer blocks.
VIT_B16: Shapes = {
  "b16_attention": (768, 768),
  "b16_fc1": (768, 3072),
  "b16_fc2": (3072, 768),
}
VIT_L14: Shapes = {
  "l14_attention": (1024, 1024),
  "l14_fc1": (1024, 4096),
  "l14_fc2": (4096, 1024),
}
TEXT_B: Shapes = {
  "text_attention": (512, 512),
  "text_fc1": (512, 2048),
  "text_fc2": (2048, 512),
}
OTHER: Shapes = {
  "b16_projection": (768, 512),
  "b16_patches": (16, 16, 3, 768),
  "text_tokens": (49_408, 512),
  "imagenet_head": (768, 1000),
}
CLIP: Shapes = VIT_B16 | VIT_L14 | TEXT_B | OTHER

# Matrices of a block, and how many there are in the model.
BLOCK_MATRICES = {
  "ViT-B/16": {"b16_attention": 48, "b16_fc1": 12, "b16_fc2": 12},
  "ViT-L/14": {"l14_attention": 96, "l14_fc1": 24, "l14_fc2": 24},
}

EDGES: Shapes = {
  "one_row": (1, 768),
  "one_column": (300, 1),
  "one_entry": (1, 1),
  "vector": (3072,),
  "odd_columns": (37, 127),
  "thousand_columns": (3, 1000),
  "wide": (2, 3072),
  "stack": (2, 3, 5, 64),
}
