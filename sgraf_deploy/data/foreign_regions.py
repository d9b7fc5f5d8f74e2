"""Files in place of a `.npy` file of regions: their formats, and hints for converting them."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from sgraf_deploy.data.hints import as_name, is_pickle, quoted
from sgraf_deploy.data.layout import AXES, Dimensions, Layout, Remedy, arrangement
from sgraf_deploy.data.npy import MAGIC, Header, read_header
from sgraf_deploy.errors import DataError
from sgraf_deploy.formats import HEAD, Format, recognise, shown

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_MOST_ARRAYS = 5
"""The number of arrays of an `.npz` that a message lists."""

_LOADERS = {
    "an HDF5 file": "import h5py, numpy; x = h5py.File({})['NAME'][:]",
    "a MATLAB file": "import numpy, scipy.io; x = scipy.io.loadmat({})['NAME']",
    "a safetensors file": (
        "import numpy, safetensors.numpy; x = safetensors.numpy.load_file({})['NAME']"
    ),
}
"""The beginning of a format's name -> Python that reads its array NAME into `x`."""

_PYTORCH = "import numpy, torch; x = torch.load({}, map_location='cpu').float().numpy()"
_OLD_PYTORCH = (b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", b"torch")
_BASE64 = re.compile(rb"[0-9A-Za-z+/]{200,}={0,2}")


def in_file(target: Path, load: str | None = None) -> Remedy:
    """The remedy for an array that `load`, by default for the file itself, reads into `x`."""

    def remedy(expression: str, *, objects: bool = False) -> str:
        pickled = ", allow_pickle=True" if objects else ""
        read = load or f"import numpy; x = numpy.load({quoted(target)}{pickled})"
        return f"with Python: {read}; numpy.save({quoted(target)}, {expression})"

    return remedy


def describe(source: Path, target: Path, model: Dimensions | None) -> Format:
    """The format of the file `source`, and a hint for making regions at `target` from it.

    An OSError is not translated.
    """
    with source.open("rb") as file:
        head = file.read(HEAD)
        if head.startswith(MAGIC):
            return Format("a NumPy array (.npy)", f"rename it to {target.name}")
        if head.startswith(_ZIP):
            return _zip(file, source, target, model)
    table = _base64_table(head, source, target, model)
    if table is not None:
        return table
    if not is_pickle(head):
        return _known(head, source, target, model)
    if any(mark in head for mark in _OLD_PYTORCH):
        return _pytorch(source, target)
    return Format("a pickle, which is not read", _save(target, model))


def _known(head: bytes, source: Path, target: Path, model: Dimensions | None) -> Format:
    """Recognise arrays of other libraries, archives, web pages and pointers by first bytes."""
    known, save = recognise(head), _save(target, model)
    if known is None:
        return Format(f"bytes that begin with {shown(head)}", save)
    for name, load in _LOADERS.items():
        if known.name.startswith(name):
            line = in_file(target, load.format(quoted(source)))("x")
            return Format(known.name, f"{line}, where NAME is the array's name in there")
    hint = known.hint if known.hint and known.name != "an ONNX model" else save
    return Format(known.name, as_name(hint, target.name))


def no_regions(path: Path, name: str, model: Dimensions | None) -> DataError:
    """The error for a file that is not a `.npy` file; `name` is its name in the message."""
    actual = describe(path, path, model)
    return DataError(f"{name} is not a .npy file", got=actual.name, hint=actual.hint)


def _save(target: Path, model: Dimensions | None) -> str:
    axes = ", ".join(AXES) if model is None else f"images, {model[0]}, {model[1]}"
    return f"write float32 of shape ({axes}) to {target.name} with numpy.save"


def _pytorch(source: Path, target: Path) -> Format:
    return Format("a PyTorch file", in_file(target, _PYTORCH.format(quoted(source)))("x"))


def _zip(file: BinaryIO, source: Path, target: Path, model: Dimensions | None) -> Format:
    """Describe an `.npz` with its arrays, a file of PyTorch, or any other archive."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if any(name.endswith("/data.pkl") for name in names):
                return _pytorch(source, target)
            arrays = {
                name.removesuffix(".npy"): _header(archive, name)
                for name in names
                if name.endswith(".npy")
            }
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, NotImplementedError, EOFError):
        return Format("a damaged zip archive", "copy or download it again")
    if not arrays:
        hint = f"unpack it and save the features as {target.name} with numpy.save"
        return Format(f"a zip archive of {', '.join(names[:_MOST_ARRAYS]) or 'nothing'}", hint)
    listed = ", ".join(
        f"{key!r} {header.shape} {header.dtype}"
        for key, header in list(arrays.items())[:_MOST_ARRAYS]
    )
    return Format(f"an .npz archive of {listed}", _npz_hint(arrays, source, target, model))


def _header(archive: zipfile.ZipFile, name: str) -> Header:
    with archive.open(name) as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise zipfile.BadZipFile(name)
        try:
            return read_header(cast(BinaryIO, file), name)
        except DataError as error:
            raise zipfile.BadZipFile(name) from error


def _npz_hint(
    arrays: dict[str, Header], source: Path, target: Path, model: Dimensions | None
) -> str:
    """Python that saves the only array that a model can read, or the reason why there is none."""

    def remedy(key: str) -> Remedy:
        pickled = ", allow_pickle=True" if arrays[key].dtype == "|O" else ""
        load = f"import numpy; x = numpy.load({quoted(source)}{pickled})[{key!r}]"
        return in_file(target, load)

    fitting = [key for key in arrays if _fault(arrays[key], model, remedy(key)) is None]
    if len(fitting) == 1:
        return remedy(fitting[0])("x")
    if len(arrays) == 1:
        ((key, header),) = arrays.items()
        fault = _fault(header, model, remedy(key))
        return (fault and fault.hint) or remedy(key)("x")
    for key, header in arrays.items():
        expression = arrangement(header.shape, model)
        if expression is not None and not fitting:
            return remedy(key)(expression)
    return remedy(next(iter(fitting or arrays)))("x") + ", for the array with the regions"


def _fault(header: Header, model: Dimensions | None, remedy: Remedy) -> DataError | None:
    try:
        Layout(header.shape, header.dtype).check("array", model, remedy)
    except DataError as error:
        return error
    return None


def _base64_table(
    head: bytes, source: Path, target: Path, model: Dimensions | None
) -> Format | None:
    """Describe features in base64, one line per image, the format of bottom-up attention."""
    line = head.split(b"\n")[0]
    if b"\t" not in line or not _BASE64.fullmatch(line.split(b"\t")[-1].rstrip()):
        return None
    name = "a table with features in base64 (.tsv), the format of bottom-up attention"
    if model is None:
        return Format(name, _save(target, model))
    rows = (
        "[numpy.frombuffer(base64.b64decode(line.split('\\t')[-1]), numpy.float32)"
        f".reshape({model[0]}, {model[1]}) for line in open({quoted(source)})]"
    )
    load = f"import base64, numpy; x = numpy.stack({rows})"
    order = "if its images are in the order of the captions, "
    return Format(name, order + in_file(target, load)("x"))
