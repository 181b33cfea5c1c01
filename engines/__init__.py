"""ONNX graphs become engines for GPUs, and engines become a bundle.

targets      names of GPUs → what has to be built
flavours     the libraries that build, and whether they can here
source       an export folder, read only after its hashes were checked
keys         what an engine depends on
trt, ort     one graph → one engine, with TensorRT or for onnxruntime
acceptance   an engine runs, and agrees with the reference, before it enters a bundle
build        all of it, resumable
"""
