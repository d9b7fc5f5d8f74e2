"""Training on precomp folders with the paper's loss, to checkpoints in the authors' format."""
