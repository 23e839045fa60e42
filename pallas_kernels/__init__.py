"""Kernels for the sparse masked mix, and the integer formulas they share."""
