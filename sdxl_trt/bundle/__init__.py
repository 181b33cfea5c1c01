"""The bundle: a folder that holds everything a host needs to make pictures, and nothing else travels.

bundle.json           what is in it (`Manifest`), written last and atomically
bundle.sig            who vouches for it, if anybody does (see sdxl_trt.trust)
blobs/sha256/<hex>    every file under the hash of its content, shared between targets; or in its place its chunks,
                      each under its own hash, shared between files
.pending/<key>.json   engines of a build that has not finished (see sdxl_trt.engines.pending)
.lock                 held by whoever writes
"""

from sdxl_trt.bundle.blobs import BlobStore, siblings
from sdxl_trt.bundle.content import Blob, Chunk
from sdxl_trt.bundle.hosts import Host, choose_target, mapped
from sdxl_trt.bundle.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    EngineEntry,
    Manifest,
    Refiner,
    Target,
    manifest_text,
    parse_manifest,
    read_manifest,
    write_manifest,
)
from sdxl_trt.bundle.presence import not_pulled
from sdxl_trt.bundle.refiner import conflict

__all__ = [
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "Blob",
    "BlobStore",
    "Chunk",
    "EngineEntry",
    "Host",
    "Manifest",
    "Refiner",
    "Target",
    "choose_target",
    "conflict",
    "manifest_text",
    "mapped",
    "not_pulled",
    "parse_manifest",
    "read_manifest",
    "siblings",
    "write_manifest",
]
