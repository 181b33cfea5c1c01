# syntax=docker/dockerfile:1
# Two images. `docker build --target build` has what exporting and building need; the default is the slim runtime,
# which has neither PyTorch nor the checkpoint, and pulls bundles from a registry. `python -m benchmarks.production_host`
# runs the runtime's commands without Docker.
#
#   docker build --target build -t sdxl-trt-build .
#   docker run -v "$PWD/out:/out" sdxl-trt-build build demo --gpu cpu --gpu rtx3060 -o /out/bundle
#   docker build -t sdxl-trt .
#   docker run --read-only --tmpfs /tmp -v models:/models -v "$PWD/release.pub:/etc/sdxl-trt/trusted.pem:ro" sdxl-trt \
#       run "a large red circle on a white background" --bundle oci://registry.example/sdxl:1 -o /models/picture.png

ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS wheel
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim AS build
# The CPU build of PyTorch is enough: tracing reads no weights and runs nothing.
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu torch==2.13.0 \
    && pip install --no-cache-dir "$(ls /wheels/*.whl)[export,build,cpu,tensorrt-rtx]"
ENTRYPOINT ["sdxl-trt"]

FROM python:${PYTHON}-slim AS runtime
# cpu, tensorrt-rtx, tensorrt or ort-cuda: the library that runs the engines on the hosts this image is for.
ARG FLAVOUR=cpu
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir "$(ls /wheels/*.whl)[${FLAVOUR},ship,serve]" \
    && useradd --create-home --uid 10001 sdxl \
    && install --directory --owner sdxl --group sdxl /models
# Bundles and kernels that were compiled for this GPU: the only place that is written to, besides /tmp.
ENV XDG_DATA_HOME=/models XDG_CACHE_HOME=/models/cache
VOLUME /models
USER sdxl
ENTRYPOINT ["sdxl-trt"]
