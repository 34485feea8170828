"""Networks of others: classes of the user, foundation encoders, ONNX files, and files for other programs."""
