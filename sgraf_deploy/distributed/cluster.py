"""Joins a Ray cluster, or starts one on this machine; refuses one that strangers could command.

Whoever reaches the ports of a cluster without token authentication runs code on it.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sgraf_deploy.errors import InputError, UnavailableError
from sgraf_deploy.files.writer import write_file

INSTALL = "pip install 'sgraf-deploy[ray]'"
TOKEN = "token"
ALWAYS = {"RAY_USAGE_STATS_ENABLED": "0"}
"""What is set wherever Ray is used: it reports nothing of its use."""

_CONNECT_S = 10.0
_START = (
    "start one: RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 "
    "ray start --head --node-ip-address 127.0.0.1"
)


def check_installed() -> None:
    """Raise UnavailableError where Ray is missing."""
    from importlib.util import find_spec

    if find_spec("ray") is None:
        raise UnavailableError("--ray: packages", got="no ray", hint=INSTALL)


@contextmanager
def connected(address: str | None = None, *, guarded: bool = False) -> Iterator[None]:
    """Be connected to a cluster: the one at `address`, `auto` for the one of this machine, or one
    that is started on loopback and ends with the block.

    A process that is connected already uses that connection, and keeps it. What serves has to be
    `guarded`: other users of a machine reach its loopback, too.

    Raises:
        UnavailableError: Ray is missing, or there is no cluster at the address.
        InputError: the cluster has no token authentication, and other machines reach it, or it has
            to be guarded.
    """
    check_installed()
    with ExitStack() as stack:
        _set(stack, ALWAYS)
        if address is None:
            _set(stack, _local(stack))
        import ray

        if not ray.is_initialized():
            stack.callback(ray.shutdown)
            _init(address)
        check_cluster(
            (node["NodeManagerAddress"] for node in ray.nodes()), _mode(), guarded=guarded
        )
        yield


def check_cluster(addresses: Iterable[str], mode: str, *, guarded: bool = False) -> None:
    """Refuse a cluster without token authentication, unless all of its nodes are on loopback and it
    need not be guarded.

    Raises:
        InputError: it is one.

    Example:
        >>> check_cluster(["127.0.0.1"], "none")
        >>> check_cluster(["10.0.0.7", "10.0.0.8"], "token")
    """
    nodes = set(addresses)
    exposed = sorted(one for one in nodes if guarded or not ipaddress.ip_address(one).is_loopback)
    if exposed and mode != TOKEN:
        raise InputError(
            f"the Ray cluster at {', '.join(exposed[:3])}",
            expected="token authentication, as whoever reaches its ports runs code on it",
            got=mode,
            hint="start its nodes, and this command, with RAY_AUTH_MODE=token and one token",
        )


def _local(stack: ExitStack) -> Mapping[str, str]:
    """What keeps a new cluster on loopback, behind a token, and its files in a folder that goes."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp" if os.name == "posix" else None))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    token = folder / "token"  # the folder is this user's alone
    write_file(token, secrets.token_hex(32), what="token")
    return {
        "RAY_AUTH_MODE": TOKEN,
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else it takes an address that others reach
        "RAY_TMPDIR": str(folder),
    }


def _set(stack: ExitStack, variables: Mapping[str, str]) -> None:
    """Set environment variables until the stack is closed."""
    for name, value in variables.items():
        before = os.environ.get(name)
        os.environ[name] = value
        stack.callback(_restore, name, before)


def _restore(name: str, before: str | None) -> None:
    if before is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = before


def _init(address: str | None) -> None:
    import ray
    from ray.exceptions import RayError

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    if address is None:
        options |= {"_node_ip_address": "127.0.0.1", "include_dashboard": False}
    try:
        host, _, port = (address or "").rpartition(":")
        if host and port.isdecimal():  # Ray itself would wait for minutes
            socket.create_connection((host, int(port)), _CONNECT_S).close()
        ray.init(address="local" if address is None else address, **options)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise UnavailableError(
            f"the Ray cluster {address or ''}".rstrip(),
            expected="one that answers",
            got=str(error).splitlines()[0][:200] if str(error) else type(error).__name__,
            hint=_START,
        ) from error


def _mode() -> str:
    """How the cluster authenticates, as one of its nodes says: this process may differ."""
    import ray

    return str(ray.get(ray.remote(num_cpus=0)(_mode_here).remote()))


def _mode_here() -> str:
    from ray._raylet import AuthenticationMode, get_authentication_mode

    return TOKEN if get_authentication_mode() == AuthenticationMode.TOKEN else "none"
