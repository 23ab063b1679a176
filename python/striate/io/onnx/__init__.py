"""ONNX files: models in, models out."""
