"""The constants of SGRAF's formulas, as in the authors' code."""

EPSILON = 1e-8
"""Added to every norm before dividing."""

ATTENTION_SMOOTHING = 9.0
"""Inverse temperature of the softmax over regions."""

LEAKY_SLOPE = 0.1
"""Slope of the leaky ReLU on the region-word products, below zero."""

BATCHNORM_EPSILON = 1e-5
"""Added to every running variance: PyTorch's default, which the authors keep."""
