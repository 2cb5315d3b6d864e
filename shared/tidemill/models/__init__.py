"""How models are stored and run: the artifact with its manifest, the order of the inputs, the ONNX engine."""
