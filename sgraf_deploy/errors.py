"""Every error that this package raises on purpose.

    SgrafDeployError
    ├── InputError            an argument, option or file is invalid        exit 2
    │   ├── CheckpointError   a checkpoint file cannot be used
    │   ├── BundleError       a bundle folder cannot be used or written
    │   └── DataError         captions, vocabulary, regions or arrays are invalid
    ├── UnavailableError      an engine or a package is missing here        exit 2
    ├── EngineMemoryError     an engine ran out of memory                   exit 2
    ├── DeviceError           a GPU, its driver or an engine on it failed   exit 2
    └── GateError             a bound or the export gate failed             exit 1

A message says on one line what is wrong, what was expected, what was given instead, and a hint.
"""

from __future__ import annotations

from typing import Self


class SgrafDeployError(Exception):
    """Base of every deliberate error; the command line exits with its `exit_code`.

    `what`, `expected`, `got` and `hint` are the parts of the message; all but `what` may be None.
    `reason` is the message without the hint.

    Example:
        >>> try:
        ...     sgraf_deploy.load("none.sgraf")
        ... except sgraf_deploy.errors.SgrafDeployError as error:
        ...     print(type(error).__name__, error.exit_code, error.hint, sep="; ")
        BundleError; 2; write one with `sgraf-deploy export`
    """

    exit_code = 2

    def __init__(
        self,
        what: str,
        *,
        expected: object = None,
        got: object = None,
        hint: str | None = None,
    ) -> None:
        details = [
            f"{label} {value}"
            for label, value in (("expected", expected), ("got", got))
            if value is not None
        ]
        message = f"{what}: {', '.join(details)}" if details else what
        self.what, self.expected, self.got, self.hint = what, expected, got, hint
        self.reason = " ".join(message.split())
        if hint is not None:
            message = f"{message}; {hint}"
        super().__init__(" ".join(message.split()))

    def at(self, place: object) -> Self:
        """The same error with a place, such as a file, at the beginning of its message."""
        what = f"{place}: {self.what}"
        return type(self)(what, expected=self.expected, got=self.got, hint=self.hint)


class InputError(SgrafDeployError):
    """An argument, an option or a file that the caller gave is invalid.

    Example:
        >>> scorer.rerank("two dogs play in the snow", images, top_k=0)
        Traceback (most recent call last):
        sgraf_deploy.errors.InputError: top_k: expected a positive integer, or None for all, got 0
    """


class CheckpointError(InputError):
    """A checkpoint file cannot be used.

    Example:
        >>> from pathlib import Path
        >>> from sgraf_deploy.export.exporter import export_bundle
        >>> export_bundle([Path("dev_ims.npy")], Path("new.sgraf"))
        Traceback (most recent call last):
        sgraf_deploy.errors.CheckpointError: ...
    """


class BundleError(InputError):
    """A bundle folder cannot be read, verified, fetched or written.

    Example:
        >>> sgraf_deploy.Bundle.open("hf://alone")
        Traceback (most recent call last):
        sgraf_deploy.errors.BundleError: 'hf://alone': expected hf://OWNER/NAME or ...
    """


class DataError(InputError):
    """Captions, a vocabulary, region features or arrays are invalid.

    Example:
        >>> scorer.encode_captions(["two dogs play in the snow", ""])
        Traceback (most recent call last):
        sgraf_deploy.errors.DataError: caption 1...
    """


class UnavailableError(SgrafDeployError):
    """An engine or a package that was asked for is not available on this machine.

    Example:
        >>> sgraf_deploy.load("f8k.sgraf", device="cuda:99")
        Traceback (most recent call last):
        sgraf_deploy.errors.UnavailableError: ...
    """


class EngineMemoryError(SgrafDeployError):
    """An engine ran out of memory; smaller tiles may still fit.

    Example:
        >>> try:
        ...     similarities = scorer.score(images, captions)
        ... except sgraf_deploy.errors.EngineMemoryError:
        ...     similarities = scorer.score(images[:3], captions)
    """


class DeviceError(SgrafDeployError):
    """A GPU, its driver, or an engine that runs on it failed.

    Example:
        >>> try:
        ...     similarities = scorer.score(regions, ["two dogs play in the snow"])
        ... except sgraf_deploy.errors.DeviceError:
        ...     with sgraf_deploy.load("f8k.sgraf", device="cpu") as other:
        ...         similarities = other.score(regions, ["two dogs play in the snow"])
    """


class GateError(SgrafDeployError):
    """A numeric bound or a step of a check failed; for an export or a compilation, the result
    differs too much from the reference and is not published.

    Example:
        >>> try:
        ...     other = sgraf_deploy.load("f8k.sgraf")  # compares plans that are new to it
        ... except sgraf_deploy.errors.GateError:
        ...     other = sgraf_deploy.load("f8k.sgraf", engine="ort")
        >>> other.close()
    """

    exit_code = 1


class CaptionWarning(UserWarning):
    """The captions can be scored, but are unlike those that the model was trained on.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as told:
        ...     warnings.simplefilter("always")
        ...     ids = scorer.encode_captions([[17, 9]])  # without <start> and <end>
        >>> told[0].category.__name__
        'CaptionWarning'
    """


class RegionsWarning(UserWarning):
    """The regions can be scored, but are converted first, which costs time.

    Or those of photographs are unlike those that the model was trained on.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as told:
        ...     warnings.simplefilter("always")
        ...     doubles = scorer.encode_images(regions.astype("float64"))
        >>> told[0].category.__name__
        'RegionsWarning'
    """
