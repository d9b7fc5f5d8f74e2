"""Compiles ONNX graphs to TensorRT plans."""
