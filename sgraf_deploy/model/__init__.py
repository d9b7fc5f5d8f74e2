"""The model that the paper defines: the reference, the folded model, and their checkpoints."""
