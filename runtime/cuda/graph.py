"""Work recorded once as a CUDA graph, and launched again and again."""

from __future__ import annotations

from sdxl_trt.runtime.cuda.context import Context, Owned
from sdxl_trt.runtime.device import Stream, Work


class CudaGraph:
    """What `work` puts on a stream, as an executable graph.

    Recording is thread-local: a call of this thread that could not be replayed (allocating, waiting) fails at once,
    and what other threads do meanwhile is their own affair. (In the global mode their allocations would end it; in the
    relaxed mode ours would pass unseen.)

    Args:
        context: of the GPU.
        work: is called once, recorded and not run.
        stream: to record on.

    Raises:
        RunError: `work` does what cannot be recorded.
    """

    def __init__(self, context: Context, work: Work, stream: Owned) -> None:
        self._context = context
        self._work = work  # the graph has but the addresses of what this holds
        self._executable = context.graph(_record(context, work, stream))
        # What the first launch would do otherwise: take the memory that the graph needs on the GPU.
        context.check(context.cu.cuGraphUpload(self._executable.handle, stream.handle), "load a recorded step")

    def launch(self, stream: Owned) -> None:
        """Put the work on a stream, in one call."""
        context = self._context
        context.check(context.cu.cuGraphLaunch(self._executable.handle, stream.handle), "launch a recorded step")


def _record(context: Context, work: Work, stream: Stream) -> object:
    cu, handle = context.cu, stream.handle  # type: ignore[attr-defined]
    mode = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    context.check(cu.cuStreamBeginCapture(handle, mode), "begin to record a step")
    try:
        work(stream)
    except BaseException:
        status, graph = cu.cuStreamEndCapture(handle)  # of no interest any more: the first error says why
        if not int(status):
            cu.cuGraphDestroy(graph)
        raise
    graph = context.check(cu.cuStreamEndCapture(handle), "record a step")
    try:
        return context.check(cu.cuGraphInstantiate(graph, 0), "make a recorded step executable")
    finally:
        context.check(cu.cuGraphDestroy(graph), "release a recorded step")
