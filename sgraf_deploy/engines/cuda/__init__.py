"""What the GPU engines share: a small interface to CUDA, memory, streams and base classes."""
