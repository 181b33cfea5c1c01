"""Who vouches for a bundle: its signature, the keys of a host, and what a host with keys refuses.

keys          key files: a private key to sign with, public keys to check signatures with
hosts         the public keys that are configured on a host
signature     bundle.sig: what it says
signing       making one
verifying     checking one
ownership     files and folders that other users could write
admission     all of that for a bundle that is about to be opened
freshness     older bundles in the place of newer ones

Signatures are those of OpenSSF's model-signing (a sigstore bundle, made offline with a key on the curve P-256) over
bundle.json, which names every other file by its hash. The library is imported on hosts with a key alone: it takes a
second. Nothing here reads what a bundle holds beyond bundle.json's bytes.
"""

from sdxl_trt.trust.admission import admit, kept_safely, signer
from sdxl_trt.trust.freshness import Freshness
from sdxl_trt.trust.hosts import KEY_VARIABLE, host_keys
from sdxl_trt.trust.keys import PrivateKey, PublicKey, read_private_key, read_public_keys
from sdxl_trt.trust.signature import SIGNATURE_NAME
from sdxl_trt.trust.signing import sign
from sdxl_trt.trust.verifying import verify

__all__ = [
    "KEY_VARIABLE",
    "SIGNATURE_NAME",
    "Freshness",
    "PrivateKey",
    "PublicKey",
    "admit",
    "host_keys",
    "kept_safely",
    "read_private_key",
    "read_public_keys",
    "sign",
    "signer",
    "verify",
]
