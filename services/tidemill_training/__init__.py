"""Training: point-in-time examples, a scikit-learn pipeline, its ONNX twin, and the deployment of both."""
