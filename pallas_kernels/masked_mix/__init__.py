"""masked_mix: anchor and residual to live weights."""
