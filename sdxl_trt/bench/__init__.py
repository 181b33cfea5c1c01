"""`sdxl-trt bench`: what a bundle takes on this host, stage by stage, beside diffusers where that is installed."""

PROMPT = "a large red circle on a white background"
"""What is drawn, unless something else is asked for."""
