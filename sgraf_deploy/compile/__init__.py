"""From ONNX graphs to TensorRT plans."""
