"""Pictures of one request on several devices of a host, each with a process of its own."""

from sdxl_trt.runtime.fleet.fleet import Fleet

__all__ = ["Fleet"]
