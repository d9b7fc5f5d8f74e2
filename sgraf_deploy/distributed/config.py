"""The file of `serve --ray`: what runs how often, and where.

bundle: /srv/f8k.sgraf
galleries: [/srv/part-0.gallery, /srv/part-1.gallery]
replicas: 2
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sgraf_deploy.errors import InputError

MOST_BYTES = 2**20
LEAST_REPLICAS = 2


@dataclass(frozen=True)
class OnlineConfig:
    """An application on Ray.

    `bundle` and `galleries` are paths on every node; of several galleries each is the shard of its
    place, which `shards.shard_of` says of an id. Each gallery is served by `replicas` processes of
    `cpus` threads and `gpus` GPUs; `fronts` processes read the requests. `address` is the
    cluster's, `auto` for the one of this machine. `every_node` listens on each node that has a
    front, else the head alone. `down_s` are the seconds after which a gallery without a replica
    that takes a call counts as down. `resource` places shards: the replicas of the gallery at
    place 3 run on nodes with the Ray resource `NAME-3`; without it on any node.

    Raises:
        InputError: a number that cannot be, or no gallery.
    """

    bundle: str
    galleries: tuple[str, ...]
    replicas: int = 2
    fronts: int = 2
    cpus: int = 1
    gpus: int = 0
    address: str = "auto"
    every_node: bool = False
    down_s: float = 5.0
    resource: str | None = None

    def __post_init__(self) -> None:
        if not self.galleries:
            raise InputError("galleries", expected="at least one path", got="none")
        for name in ("replicas", "fronts", "cpus"):
            if getattr(self, name) < 1:
                raise InputError(name, expected="at least 1", got=getattr(self, name))
        if self.gpus < 0:
            raise InputError("gpus", expected="at least 0", got=self.gpus)
        if self.down_s <= 0:
            raise InputError("down_s", expected="more than 0 seconds", got=self.down_s)

    def resources(self, shard: int) -> dict[str, float]:
        """The Ray resources that a replica of a shard needs besides CPUs and GPUs."""
        return {} if self.resource is None else {f"{self.resource}-{shard}": 0.001}

    def check_replicas(self, *, allow_downtime: bool) -> None:
        """Refuse what leaves a gap while it is updated: Ray stops a replica before its successor
        starts.

        Raises:
            InputError: fewer than two replicas or fronts, unless downtime is allowed.
        """
        for name in ("replicas", "fronts"):
            if getattr(self, name) < LEAST_REPLICAS and not allow_downtime:
                raise InputError(
                    name,
                    expected=f"at least {LEAST_REPLICAS}, as an update stops one before the next "
                    "one starts",
                    got=getattr(self, name),
                    hint="--allow-downtime takes fewer",
                )


def read_config(path: Path) -> OnlineConfig:
    """Read the file of an application.

    Raises:
        InputError: a file that cannot be read or is no YAML; a field that is unknown, missing or of
            another type.
    """
    import yaml

    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise InputError(f"{path}", expected=f"at most {MOST_BYTES} bytes", got="more")
        found = yaml.safe_load(text)
    except OSError as error:
        raise InputError(f"{path} cannot be read", got=error.strerror) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        got = str(error).splitlines()[0]
        raise InputError(f"{path}", expected="a mapping in YAML", got=got) from error
    if not isinstance(found, dict):
        raise InputError(f"{path}", expected="a mapping in YAML", got=type(found).__name__)
    try:
        return _decoded(found)
    except InputError as error:
        raise error.at(path) from error


def _decoded(found: Mapping[Any, Any]) -> OnlineConfig:
    known = {field.name: str(field.type) for field in fields(OnlineConfig)}
    for name in found:
        if name not in known:
            raise InputError(f"{name!r}", expected=", ".join(known), got="another field")
    for name in ("bundle", "galleries"):
        if name not in found:
            raise InputError(name, expected="a path, or a list of paths", got="none")
    return OnlineConfig(**{name: _value(name, known[name], found[name]) for name in found})


def _value(name: str, kind: str, value: Any) -> Any:
    """A field's value, exactly of its type."""
    if kind.startswith("tuple"):
        if isinstance(value, list) and all(isinstance(one, str) and one for one in value):
            return tuple(value)
        raise InputError(name, expected="a list of paths", got=repr(value)[:80])
    kinds: Mapping[str, tuple[type, ...]]
    kinds = {
        "str": (str,),
        "str | None": (str,),
        "int": (int,),
        "float": (int, float),
        "bool": (bool,),
    }
    if (
        isinstance(value, kinds[kind])
        and (kind == "bool") == isinstance(value, bool)
        and value != ""
    ):
        return value
    raise InputError(name, expected=f"a value of type {kind}", got=repr(value)[:80])
