"""A client of `sdxl-trt serve` for Python programs; needs neither engines nor a bundle.

    from sdxl_trt.client import Client

    with Client("http://127.0.0.1:8000") as client:
        client.generate("a red circle", steps=30, seed=7).images[0].save("out.png")

synchronous   `Client`, and
asynchronous  `AsyncClient`: they send, read, and wait, and that is all they do
calls         what is sent, and how its answer is read, with
settings, inputs            what pictures are asked with
answers, events, pictures   what comes back
server        where it goes, and
network, failures           what goes wrong there, and on the way
"""

from sdxl_trt.client.answers import Model, Queue, Waiting
from sdxl_trt.client.asynchronous import AsyncClient
from sdxl_trt.client.failures import Busy, Failed, Refused
from sdxl_trt.client.pictures import Event, Partial, Picture, Pictures
from sdxl_trt.client.synchronous import Client

__all__ = [
    "AsyncClient",
    "Busy",
    "Client",
    "Event",
    "Failed",
    "Model",
    "Partial",
    "Picture",
    "Pictures",
    "Queue",
    "Refused",
    "Waiting",
]
