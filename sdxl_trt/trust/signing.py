"""Making a signature."""

from __future__ import annotations

from pathlib import Path

from sdxl_trt.errors import OutputError
from sdxl_trt.trust.keys import PrivateKey
from sdxl_trt.trust.library import in_memory, model_signing
from sdxl_trt.trust.verifying import verify


def sign(manifest: Path, text: bytes, key: PrivateKey) -> bytes:
    """The signature of a bundle.json: what is to stand in bundle.sig.

    Args:
        manifest: the file; the signature holds its name, for people.
        text: what was read from it and found to be a manifest.
        key: to sign with.

    Raises:
        FlavourUnavailable: the library that signs is not installed.
        NotTrusted: the file changed meanwhile, so that the signature is of something else.
        OutputError: the library failed.
    """
    library = model_signing()
    unfiltered = library.hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)
    try:
        with in_memory(key.pem) as pem, in_memory() as signature:
            config = library.signing.Config().set_hashing_config(unfiltered)
            config.use_elliptic_key_signer(private_key=pem, password=key.password).sign(manifest, signature)
            signed = signature.read_bytes()
    except Exception as error:  # of whatever the library met
        raise OutputError(f"{manifest} could not be signed", got=f"{type(error).__name__}: {error}") from error
    verify(text, signed, (key.public,), manifest)
    return signed
