"""masked_mix: anchor and residual to training weights."""
