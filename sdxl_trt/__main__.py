"""`python -m sdxl_trt` is `sdxl-trt`."""

from sdxl_trt.cli import main

main()
