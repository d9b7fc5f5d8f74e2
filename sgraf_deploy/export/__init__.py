"""Checkpoint to ONNX, and the gate that verifies it."""
