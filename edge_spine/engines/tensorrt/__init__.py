"""TensorRT on an NVIDIA GPU; its door is `engine.TensorRTEngine`."""
