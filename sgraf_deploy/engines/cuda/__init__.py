"""What the GPU engines share: one small interface to CUDA, and memory and streams on top of it."""
