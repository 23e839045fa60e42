"""What users never import: masks, arithmetic and state behind both forms."""
