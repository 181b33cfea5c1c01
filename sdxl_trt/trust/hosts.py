"""The public keys that are configured on a host: any of them may have signed a bundle. No key: nothing is checked."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from sdxl_trt.errors import KeyFileError
from sdxl_trt.paths import config_folder
from sdxl_trt.trust.keys import PublicKey, read_public_keys

KEY_VARIABLE = "SDXL_TRT_PUBLIC_KEY"
"""Names key files in the environment, divided as PATH is."""

SYSTEM_KEYS = Path("/etc/sdxl-trt/trusted.pem")


def host_keys() -> tuple[PublicKey, ...]:
    """Every key of every place: the environment (where --key goes too), the system's file, the user's.

    Raises:
        KeyFileError: a place is configured, and what is there cannot be used. It is not passed over: a host would
            check nothing because of a wrong letter.
        FlavourUnavailable: a key is configured, and the library that reads keys is not installed.
    """
    return tuple(key for place in _places() for key in read_public_keys(place))


def _places() -> Iterator[Path]:
    named = os.environ.get(KEY_VARIABLE, "")
    yield from (Path(path) for path in named.split(os.pathsep) if path)
    files = [SYSTEM_KEYS]
    with contextlib.suppress(RuntimeError):  # a user of no name and without a home has no file there
        files.append(config_folder() / "trusted.pem")
    yield from (file for file in files if _is_there(file))


def _is_there(path: Path) -> bool:
    """Whether a file is there; `Path.exists` takes one that may not be seen for one that is not there."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise KeyFileError(
            f"it cannot be seen whether {path} is there",
            got=error.strerror or str(error),
            expected="a folder that this user may look into, or none",
            fix=f"chmod go+rx {path.parent}",
        ) from error
    return True
