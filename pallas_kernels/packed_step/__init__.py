"""packed_step: one AdamW step of GMixout on the active entries of a leaf."""
