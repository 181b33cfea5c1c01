"""Programs that measure sdxl-trt beside its peers: each prints a table and writes JSON. They are no tests."""
