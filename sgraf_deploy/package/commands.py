"""The commands by which trtexec, Polygraphy and perf_analyzer run a bundle's graphs.

All of them would make up ids, lengths and indices that no model was made for: a script that is
written beside (`inputs_script`) makes valid ones.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.bundle.manifest import GraphFile
from sgraf_deploy.compile.profiles import Sizes, Use, profile, uses
from sgraf_deploy.config import COMBINED, GRAPHS, GraphSignature
from sgraf_deploy.engines.trt.plans import Profile
from sgraf_deploy.errors import InputError
from sgraf_deploy.files.disk import PathLike
from sgraf_deploy.files.writer import check_file, write_file
from sgraf_deploy.package.triton import model_name

_TEMPLATE = Path(__file__).with_name("inputs_script.py")
_ELSEWHERE = "choose another folder"
_SHAPES = ("min", "opt", "max")
"""A profile's shapes in their order, as trtexec calls them."""


@dataclass(frozen=True)
class Case:
    """One graph in one precision, with the sizes of one profile.

    `name` is the script's for its inputs, and `model` that of the graph in a repository of models
    (`package.triton`). `profile` has the smallest, best and largest shape of every input.
    """

    name: str
    model: str
    onnx: Path
    signature: GraphSignature
    profile: Profile

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every input that the script makes: the profile's best."""
        return {name: best for name, (_, best, _) in self.profile.items()}


def list_cases(bundle: Bundle) -> list[Case]:
    """Every graph of a bundle with the profiles that `sgraf-deploy compile` builds it for.

    A combined graph, which `compile` does not build, has those of a scorer. Raises BundleError for
    a graph that is missing or damaged, and InputError for a bundle whose path cannot be printed.
    """
    _check_printable(bundle.path, f"bundle {bundle.path}")
    found: list[Case] = []
    for member, one in bundle.manifest.members.items():
        for precision, graphs in one.graphs.items():
            for graph in GRAPHS:
                names = (f"{member}_{precision}_{graph}", model_name(member, graph))
                found += _cases(bundle, names, graphs[graph], uses(graph, Sizes()))
    for precision, file in bundle.manifest.combined.items():
        names = (f"{COMBINED}_{precision}", COMBINED)
        found += _cases(bundle, names, file, uses("scorer", Sizes()))
    return found


def _cases(
    bundle: Bundle, names: tuple[str, str], file: GraphFile, profiles: tuple[Use, ...]
) -> Iterator[Case]:
    """A case for every profile of a graph; those after the first have its use in their name."""
    name, model = names
    onnx, signature = bundle.file(file.ref), file.signature
    for number, use in enumerate(profiles):
        suffix = f"_{use.name.replace(' ', '_')}" if number else ""
        yield Case(f"{name}{suffix}", model, onnx, signature, profile(signature, use))


def command_lines(case: Case, script: Path) -> tuple[str, ...]:
    """What to type for a case: its raw inputs, then each of the three programs; quoted for a shell.

    `script` is the absolute path that `write_script` wrote to.
    """
    raw = script.with_name(f"{script.stem}_raw") / case.name
    commands = [
        ["python3", script, case.name],
        _trtexec(case, raw),
        _polygraphy(case, script),
        _perf_analyzer(case, raw),
    ]
    return tuple(shlex.join(map(str, words)) for words in commands)


def _trtexec(case: Case, raw: Path) -> list[object]:
    def spec(place: int) -> str:
        pairs = ((name, shapes[place]) for name, shapes in case.profile.items())
        return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in pairs)

    return [
        *("trtexec", f"--onnx={case.onnx}"),
        *("--stronglyTyped", "--noTF32"),  # the first is what TensorRT 11 always does
        *(f"--{which}Shapes={spec(place)}" for place, which in enumerate(_SHAPES)),
        f"--loadInputs={','.join(f'{name}:{raw / name}' for name in case.profile)}",
    ]


def _polygraphy(case: Case, script: Path) -> list[object]:
    return [
        *("polygraphy", "run", case.onnx, "--onnxrt", "--validate", "--input-shapes"),
        *(f"{name}:[{','.join(map(str, shape))}]" for name, shape in case.shapes.items()),
        *("--data-loader-script", f"{script}:{case.name}"),
    ]


def _perf_analyzer(case: Case, raw: Path) -> list[object]:
    shapes = (f"{name}:{','.join(map(str, shape))}" for name, shape in case.shapes.items())
    given = (word for shape in shapes for word in ("--shape", shape))
    return ["perf_analyzer", "-m", case.model, "--input-data", raw, *given]


def script_text(cases: Sequence[Case], vocab_size: int) -> str:
    """The script that makes inputs for these cases: `inputs_script` with their names and shapes."""
    rows = []
    for case in cases:
        inputs = {spec.name: (spec.dtype, case.shapes[spec.name]) for spec in case.signature.inputs}
        rows.append(f"    {case.name!r}: {inputs!r},\n")
    text = _TEMPLATE.read_text(encoding="utf-8")
    text = text.replace("VOCAB_SIZE = 1\n", f"VOCAB_SIZE = {vocab_size}\n", 1)
    return text.replace(" = {}\n", f" = {{\n{''.join(rows)}}}\n", 1)


def write_script(path: PathLike, text: str) -> Path:
    """Write the script, whole or not at all; returns its absolute path.

    A file with the same text stays as it is. Raises InputError for a path that Python cannot
    import, or that the three programs would take apart, and for any other existing file.
    """
    target = check_script(path)
    if not target.is_file() or target.read_bytes() != text.encode():
        write_file(target, text, what="--commands", replace=False)
    return target


def check_script(path: PathLike) -> Path:
    """The absolute path of a script that can be written; InputError for one that cannot be used."""
    target, _ = check_file(path, what="--commands")
    if target.suffix != ".py" or not target.stem.isidentifier():
        raise InputError(
            f"--commands {path}",
            expected="the name of a Python module, such as inputs.py",
            got=target.name,
        )
    if re.search("[:,]", str(target)):
        raise InputError(
            f"--commands {path}", expected="a path without `:` and `,`", got=target, hint=_ELSEWHERE
        )
    _check_printable(target, f"--commands {path}")
    return target


def _check_printable(path: Path, what: str) -> None:
    """Raise InputError for a path that a line on a terminal cannot hold."""
    if not str(path).isprintable():
        raise InputError(
            what, expected="a path that can be printed", got=repr(str(path)), hint=_ELSEWHERE
        )
