"""What a graph takes: floating-point operations, bytes and memory, counted from the ONNX file that `export` writes.

Heavy nodes are convolutions, matrix products and attention: Conv, MatMul, Gemm, Attention.

operations    of the heavy nodes, two per multiply-add, whole products (padding, masks and biases save or add nothing),
              as torch.utils.flop_counter has them
bytes         weights once, in the dtype they are computed with; activations as the heavy nodes read and write them,
              with everything else taken as fused into those: norms, activation functions, sums and casts
memory        live bytes while each heavy node runs: the graph's inputs and outputs always, other tensors until their
              last use. What only exists between two heavy nodes is taken as fused, attention's scores too

`count` gives this at one shape, `graph_work` as polynomials over all shapes (`sdxl_trt.spec.work.Work`), which travel
with an engine.
"""

from sdxl_trt.costs.counting import Counts, count
from sdxl_trt.costs.fitting import graph_work

__all__ = ["Counts", "count", "graph_work"]
