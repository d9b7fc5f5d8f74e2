"""What is asked of the Hugging Face Hub, through the package `huggingface_hub`.

The only module that imports it, and inside functions. Every error of it, of its network client and
of the disk becomes a BundleError here; none repeats a URL, which may carry a signature.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgraf_deploy import __version__
from sgraf_deploy.bundle.manifest import DOCUMENT, MANIFEST
from sgraf_deploy.errors import BundleError, UnavailableError
from sgraf_deploy.files.disk import hint_for

PREFIX = "hf://"
LIBRARY = "sgraf-deploy"
INSTALL = "pip install 'sgraf-deploy[hub]'"

_NAME = r"\w(?:[\w.-]{0,94}\w)?"
_ADDRESS = re.compile(
    rf"hf:/+(?P<owner>{_NAME})/(?P<name>{_NAME})(?:@(?P<revision>\w(?:[\w.+/-]{{0,200}}\w)?))?",
    re.ASCII,
)
_NOT_IN_A_NAME = ("--", "..", "//")
_COMMIT = re.compile("[0-9a-f]{40}")
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
_SERVER_ERROR = 500

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Address:
    """A repository on the Hub, and a branch, a tag or a commit of it."""

    owner: str
    name: str
    revision: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `hf://OWNER/NAME` or `hf://OWNER/NAME@REVISION`; BundleError for anything else.

        A path that has lost one of the two slashes is read, too.
        """
        match = _ADDRESS.fullmatch(text)
        named = text.removeprefix("hf:").lstrip("/")
        if match is None or any(part in named for part in _NOT_IN_A_NAME):
            raise BundleError(
                f"{text!r}",
                expected="hf://OWNER/NAME or hf://OWNER/NAME@REVISION",
                hint="a repository holds one bundle, its manifest.json at the top",
            )
        return cls(match["owner"], match["name"], match["revision"] or "main")

    @property
    def repository(self) -> str:
        """The repository's name on the Hub, `OWNER/NAME`."""
        return f"{self.owner}/{self.name}"

    @property
    def is_commit(self) -> bool:
        """Whether the revision is a commit, which cannot change."""
        return _COMMIT.fullmatch(self.revision) is not None

    def at(self, revision: str) -> Address:
        """The same repository at another revision."""
        return Address(self.owner, self.name, revision)

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}@{self.revision}"


class HubClient:
    """The files of one address, which `huggingface_hub` keeps in the Hub's cache.

    It finds the endpoint, the cache and the user's token as it always does: by HF_ENDPOINT,
    HF_HUB_CACHE, HF_TOKEN and what `hf auth login` stored. Raises UnavailableError without it.
    """

    def __init__(self, address: Address) -> None:
        try:
            import huggingface_hub
        except ImportError as error:
            raise UnavailableError(
                f"{address}: the package huggingface_hub", got="none", hint=INSTALL
            ) from error
        self._hub: Any = huggingface_hub
        self.address = address

    def manifest(self) -> tuple[str, Path]:
        """The commit that the revision names now, and its `manifest.json` in the Hub's cache.

        If the Hub cannot be reached, they are what was fetched of the revision before, which is
        warned of unless HF_HUB_OFFLINE asks for it.
        """
        try:
            with self._translated(MANIFEST):
                size = self._size(MANIFEST)
                self._check_size(MANIFEST, size, DOCUMENT.most_bytes, at_most=True)
                path = self._download(MANIFEST, lambda count: None)
        except BundleError as refusal:
            if not _is_unreachable(refusal.__cause__):
                raise
            path = self._kept_manifest(refusal)
        commit = path.parent.name
        if _COMMIT.fullmatch(commit) is None:
            raise BundleError(
                f"{self.address}", expected="a commit from the Hub", got="none", hint=_ENDPOINT
            )
        return commit, path

    def file(self, name: str, size: int, count: Callable[[int], None]) -> Path:
        """One file of `size` bytes in the Hub's cache, where it is looked for first.

        Nothing is fetched of a file that the Hub says has another size. `count` is told of bytes
        as they arrive.
        """
        with self._translated(name):
            kept = self._hub.try_to_load_from_cache(
                self.address.repository, name, revision=self.address.revision
            )
            if isinstance(kept, str):
                return Path(kept)
            self._check_size(name, self._size(name), size)
            return self._download(name, count)

    def folder(self, commit: str) -> Path:
        """The folder, made if it was not there, in which bundles of a commit are kept."""
        with self._translated(MANIFEST):
            owner, name = self.address.owner, self.address.name
            return Path(self._hub.cached_assets_path(LIBRARY, f"{owner}--{name}", commit))

    def _kept_manifest(self, refusal: BundleError) -> Path:
        """The manifest that was fetched of the revision before; the refusal, if there is none."""
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            path = self._download(MANIFEST, lambda count: None, local_files_only=True)
        except LocalEntryNotFoundError:
            raise refusal from refusal.__cause__
        level = logging.INFO if _is_offline(refusal.__cause__) else logging.WARNING
        what = "the Hub cannot be reached; what was fetched of it before is taken"
        log.log(level, "%s: %s", self.address, what)
        return path

    def _download(self, name: str, count: Callable[[int], None], **more: Any) -> Path:
        found = self._hub.hf_hub_download(
            self.address.repository,
            name,
            revision=self.address.revision,
            library_name=LIBRARY,
            library_version=__version__,
            tqdm_class=_counter(count),
            **more,
        )
        return Path(found)

    def _size(self, name: str) -> int | None:
        """The size of a file on the Hub, in bytes; None if the Hub does not say it."""
        repository, revision = self.address.repository, self.address.revision
        url = self._hub.hf_hub_url(repository, name, revision=revision)
        found: int | None = self._hub.get_hf_file_metadata(
            url, library_name=LIBRARY, library_version=__version__
        ).size
        return found

    def _check_size(
        self, name: str, found: int | None, bytes_: int, *, at_most: bool = False
    ) -> None:
        if found is not None and (found == bytes_ or (at_most and found <= bytes_)):
            return
        raise BundleError(
            f"{self.address}: file {name} is not fetched",
            expected=f"{'at most ' if at_most else ''}{bytes_} bytes",
            got="a size that the Hub does not say" if found is None else f"{found} bytes",
            hint="ask its owner to upload the bundle again",
        )

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        """Turn what can go wrong while a file is fetched into a BundleError, whose cause it is."""
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            yield
        except (_network_error(), EntryNotFoundError, OSError, ValueError, RuntimeError) as error:
            cause: BaseException = error
            if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
                cause = error.__cause__
            raise self._refusal(cause, name) from cause

    def _refusal(self, error: BaseException, name: str) -> BundleError:
        """The BundleError for an error of the Hub, the network or the disk."""
        address, status = self.address, _status(error)
        denied = self._denied(error, status)
        if denied is not None:
            return denied
        if _is_offline(error):
            got = "HF_HUB_OFFLINE, which forbids to fetch it"
            hint = "unset HF_HUB_OFFLINE, or open it once where there is a network"
            return BundleError(f"{address} was never fetched", got=got, hint=hint)
        if _is_absent(error):
            hint = f"ask its owner to upload the folder that `{LIBRARY} export` wrote"
            return BundleError(f"{address} is not a bundle", expected=f"a file {name}", hint=hint)
        if status is not None:
            hint = "try again later; https://status.huggingface.co says whether the Hub works"
            return BundleError(f"{address}: {name}", got=f"HTTP {status}", hint=hint)
        if isinstance(error, _network_error()):
            got = f"{type(error).__name__}: {error}"
            return BundleError(f"{address}: the Hub cannot be reached", got=got, hint=_ENDPOINT)
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        hint = (hint_for(error) if isinstance(error, OSError) else None) or "try again"
        return BundleError(f"{address}: {name} cannot be fetched", got=reason, hint=hint)

    def _denied(self, error: BaseException, status: int | None) -> BundleError | None:
        """The BundleError for an answer that the repository or its revision cannot be had."""
        from huggingface_hub import errors

        address, got = self.address, f"HTTP {status}"
        if isinstance(error, errors.GatedRepoError):
            page = f"ask for access on the page of {address.repository}, and {_LOG_IN}"
            return BundleError(f"{address} is gated", got=got, hint=page)
        if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403):
            hint = f"check its name; for a private one {_LOG_IN}"
            what = f"{address}: no such repository, or none that you may read"
            return BundleError(what, got=got, hint=hint)
        if isinstance(error, errors.RevisionNotFoundError):
            hint = "name a branch, a tag or a whole commit of it, or leave @REVISION out"
            return BundleError(f"{address}: no such revision", got=got, hint=hint)
        return None


_ENDPOINT = "check the network, its proxy, and HF_ENDPOINT if it is set"


def _network_error() -> type[Exception]:
    """The base of the errors of the network client, which differs between versions of the Hub's."""
    from huggingface_hub.errors import HfHubHTTPError

    return next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")


def _is_offline(error: BaseException | None) -> bool:
    from huggingface_hub.errors import OfflineModeIsEnabled

    return isinstance(error, OfflineModeIsEnabled)


def _is_absent(error: BaseException | None) -> bool:
    from huggingface_hub.errors import EntryNotFoundError

    return isinstance(error, EntryNotFoundError)


def _is_unreachable(error: BaseException | None) -> bool:
    """Whether an error says nothing of a repository: offline, no network, or a broken server."""
    status = _status(error)
    if status is not None:
        return status >= _SERVER_ERROR
    return _is_offline(error) or isinstance(error, _network_error())


def _status(error: BaseException | None) -> int | None:
    """The status of the Hub's answer that an error is about, if there was an answer."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _counter(count: Callable[[int], None]) -> type:
    """A progress bar for `huggingface_hub` that shows nothing, and tells `count` of bytes."""
    from tqdm.auto import tqdm

    class Counter(tqdm):  # type: ignore[misc]  # tqdm is untyped
        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__(disable=True)

        def update(self, n: float | None = 1) -> None:
            """Pass the number on."""
            count(int(n or 0))

    return Counter
