"""What runs a bundle's original weights in PyTorch."""
