"""Engine `trt`: TensorRT, or TensorRT for RTX, on plans that `compile` built."""
