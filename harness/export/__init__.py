"""Networks as ONNX files: the graph, what the file says about itself, the check against the network."""
