"""From the offline store to a model: point-in-time training sets, fitting, conversion to ONNX. Fitting needs the extra `training`."""
