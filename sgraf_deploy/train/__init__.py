"""Training on precomp folders: the paper's loss, and checkpoints in the authors' format."""
