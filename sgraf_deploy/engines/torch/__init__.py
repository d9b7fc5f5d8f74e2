"""Engines `torch` and `torch-reference`: a bundle's original weights in PyTorch."""
