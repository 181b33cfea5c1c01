"""Every error a user can meet, and how it is worded.

    SdxlTrtError                      anything this tool refuses or fails at
    ├── UsageError                    the request itself is wrong (exit status 2)
    │   ├── UnknownName               no GPU, model, sampler or flavour of that name; suggests the nearest
    │   ├── UnsupportedSize           width × height the engines cannot take
    │   ├── NoStepLeft                a part of a run that holds no step
    │   ├── KeyFileError              a file that was named as a key and cannot be used as one
    │   ├── ImageError                an input picture or mask that cannot be read, is too large, or does not fit
    │   └── PromptTooLong             more tokens than the engines take
    ├── CheckpointError               the model folder cannot be exported (missing, damaged, another class)
    ├── ExportError                   a graph could not be traced or does not pass its checks
    ├── FlavourUnavailable            the library, or the GPU, that this flavour needs is not here
    ├── BuildError                    an engine could not be compiled or was not accepted
    ├── BundleError                   the bundle is damaged, hostile or of an unknown schema
    │   ├── NoTargetForHost           a sound bundle, but nothing in it runs here
    │   │   └── NotPulled             what would run here is named in it, and its files are elsewhere
    │   └── NotTrusted                no key of this host vouches for it, it is too old, or others could alter it
    ├── SchedulerError                the scheduler config asks for something that has no linear table
    ├── OutputError                   a result cannot be written where it was asked for
    ├── TransferError                 a bundle could not be sent or fetched: refused, cut off, or altered
    │   └── Unreachable               nobody answers at the other end, or only that it cannot now
    ├── OutOfMemory                   memory that is needed was refused, or will be
    └── RunError                      engines ran and gave something unusable (NaN, infinity)
        └── GpuLost                   the GPU failed or no longer answers; this process cannot use it again

A message has four parts, so that nobody has to guess: what failed, what was got, what was expected, how to fix it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class SdxlTrtError(Exception):
    """Base of all errors raised on purpose; `str(error)` is the message a user sees."""

    exit_status = 1

    def __init__(self, what: str, *, got: str = "", expected: str = "", fix: str = "") -> None:
        self.what, self.got, self.expected, self.fix = what, got, expected, fix
        super().__init__(str(self))

    def __str__(self) -> str:
        parts = (("", self.what), ("got: ", self.got), ("expected: ", self.expected), ("fix: ", self.fix))
        return "\n  ".join(label + text for label, text in parts if text)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy in another process, without another call of a constructor whose arguments are not kept."""
        return _restore, (type(self), self.args, vars(self))

    def as_dict(self) -> dict[str, str]:
        """The same message for `--json`: keys error, what, got, expected, fix (all text)."""
        return {
            "error": type(self).__name__,
            "what": self.what,
            "got": self.got,
            "expected": self.expected,
            "fix": self.fix,
        }


def _restore(kind: type[SdxlTrtError], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> SdxlTrtError:
    error = kind.__new__(kind)
    error.args = arguments
    vars(error).update(attributes)
    return error


class UsageError(SdxlTrtError):
    """The request itself is wrong; nothing was started."""

    exit_status = 2


class UnknownName(UsageError):
    """A name that is in no catalogue.

    Args:
        kind: what was looked up, in words ("GPU", "sampler").
        name: what was asked for.
        known: all names that would have been accepted.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, fix: str = "") -> None:
        names = list(known)
        close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
        super().__init__(
            f"unknown {kind} {name!r}" + (f": did you mean {close[0]}?" if close else ""),
            expected=", ".join(names),
            fix=fix,
        )
        self.suggestion = close[0] if close else None


class UnsupportedSize(UsageError):
    """A picture size the engines were not built for."""


class NoStepLeft(UsageError):
    """A part of a run that holds no step.

    Args:
        part: the setting that cuts it out: strength, denoising_start or denoising_end.
    """

    def __init__(self, part: str, *, got: str, expected: str, fix: str) -> None:
        super().__init__(f"{part} leaves no step to do", got=got, expected=expected, fix=fix)
        self.part = part


class KeyFileError(UsageError):
    """A file that was named as a key to sign with, or to check signatures with, and cannot be used as one."""


class ImageError(UsageError):
    """An input picture or mask that cannot be used: damaged, of a wrong size, or with nothing to paint."""


class PromptTooLong(UsageError):
    """A prompt of more tokens than the engines were built for."""


class CheckpointError(SdxlTrtError):
    """The model cannot be exported: files missing or damaged, or it is not an SDXL."""


class ExportError(SdxlTrtError):
    """A graph could not be traced, or failed its check."""


class FlavourUnavailable(SdxlTrtError):
    """The library or the GPU that an engine flavour needs is not on this host."""


class BuildError(SdxlTrtError):
    """An engine could not be compiled, or was not accepted afterwards."""


class BundleError(SdxlTrtError):
    """A bundle that is damaged, hostile, or written by an unknown version."""


class NoTargetForHost(BundleError):
    """A sound bundle with no target that this host can use; says which part differs."""


class NotPulled(NoTargetForHost):
    """A bundle that names a target for this host whose files were not pulled, or are lost."""


class NotTrusted(BundleError):
    """A bundle that no key of this host vouches for, that is older than what is here, or that others could alter."""


class SchedulerError(SdxlTrtError):
    """A scheduler config that asks for something that is not a linear table, or not known."""


class OutputError(SdxlTrtError):
    """A result cannot be written where it was asked for."""


class TransferError(SdxlTrtError):
    """A bundle could not be sent or fetched: refused, cut off, or what came is not what was asked for."""


class Unreachable(TransferError):
    """Nobody answers at the other end, or only that it cannot now."""


class OutOfMemory(SdxlTrtError):
    """Memory that is needed was refused, or will be."""


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error is a MemoryError, or came of one."""
    while error and not isinstance(error, MemoryError):
        error = error.__cause__ or error.__context__
    return error is not None


class RunError(SdxlTrtError):
    """Engines ran, and what came out is unusable."""


class GpuLost(RunError):
    """The GPU failed, or no longer answers; this process cannot use it again, another one may."""
