"""Recognise a file's format by its first bytes, for messages about files of a wrong format."""

from __future__ import annotations

import codecs
import pickletools
import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from dataclasses import dataclass
from typing import IO

HEAD = 4096
"""The number of first bytes of a file that `recognise` takes."""

_AGAIN = "download it again, with a browser if the server asks to sign in or to confirm"
_UNPACK = "unpack it into a new folder ({}) and give the file in it"
_HTML = re.compile(
    rb"<(!doctype html|html|head|body|script|style|meta|title|center|div|h1|p)\b", re.IGNORECASE
)
_WORDS = (
    (
        (b"version https://git-lfs",),
        "a Git LFS pointer",
        "fetch the file itself: git lfs pull",
    ),
    (
        (b"/annex/objects/", b"../.git/annex/", b".git/annex/"),
        "a git-annex pointer",
        "fetch the file itself: git annex get",
    ),
    ((b"outs:\n- md5: ",), "a DVC pointer", "fetch the file itself: dvc pull"),
)
"""The beginnings of texts in lower case, the format and the hint."""

_DELETE = 127
_PLAIN = b"\t\n\r\x0b\x0c\x1b"
_SHOWN = 40
_MOST_PICKLES = 5  # PyTorch's older format has this many in a row, followed by raw bytes.
_FEWEST_OPCODES = 8
_TAR_BLOCK = 512


@dataclass(frozen=True)
class Format:
    """A kind of file: `name` with its article, and a hint on how to use such a file, or None."""

    name: str
    hint: str | None = None


_MAGIC = (
    (b"\x1f\x9d", "a compressed file (.Z)", "uncompress"),
    (b"(\xb5/\xfd", "a zstd-compressed file", "zstd -d"),
    (b"\x04\x22\x4d\x18", "an lz4-compressed file", "lz4 -d"),
    (b"LZIP", "an lzip-compressed file", "lzip -d"),
    (b"7z\xbc\xaf'\x1c", "a 7-Zip archive", "7z x"),
    (b"Rar!\x1a\x07", "a RAR archive", "unrar x"),
)
"""The first bytes, the format, and the command that unpacks it."""

_PICTURES = (
    (b"\x89PNG", "a picture (PNG)", None),
    (b"\xff\xd8\xff", "a picture (JPEG)", None),
    (b"GIF8", "a picture (GIF)", None),
    (b"II*\0", "a picture (TIFF), or a camera's raw one", None),
    (b"MM\0*", "a picture (TIFF), or a camera's raw one", None),
    (b"\0\0\0\x0cjP  \r\n", "a picture (JPEG 2000)", None),
    (b"\0\0\0\x0cJXL \r\n", "a picture (JPEG XL)", None),
    (b"\xff\x0a", "a picture (JPEG XL)", None),
    (b"8BPS", "a picture (Photoshop)", None),
)
PICTURES = frozenset(Format(name) for _, name, _ in _PICTURES)
"""What `recognise` gives for the beginnings of pictures."""

_OTHERS = (
    *_PICTURES,
    (b"\x93NUMPY", "a NumPy array (.npy)", None),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras, or MATLAB 7.3)", None),
    (b"MATLAB 5.0 MAT-file", "a MATLAB file", None),
    (b"GGUF", "a GGUF file", None),
    (b"ftrt", "a TensorRT plan", None),
    (b"%PDF", "a PDF document", _AGAIN),
    (b"SQLite format 3\0", "an SQLite database", None),
)
_PACKED = (
    (b"\x1f\x8b", "gzip", "gzip -dc", "tar -xzf"),
    (b"BZh", "bzip2", "bzip2 -dc", "tar -xjf"),
    (b"\xfd7zXZ\0", "xz", "xz -dc", "tar -xJf"),
)
"""The first bytes, the compression, the command that undoes it, and that for a tar inside."""


def recognise(head: bytes) -> Format | None:
    """The format of a file that begins with `head`; None if it is unknown.

    `head` is the file's first HEAD bytes, or the whole file if it is shorter. Files of PyTorch,
    other zip archives and pickles are not recognised, because that needs a look inside.
    """
    if not head.strip(b"\0"):
        return Format(
            "an empty file" if not head else "a file of zero bytes", "copy or download it again"
        )
    for recognised in (_packed(head), _tar(head), _by_magic(head), _model(head), _text(head)):
        if recognised is not None:
            return recognised
    return None


@dataclass(frozen=True)
class Pickles:
    """What the pickles at the beginning of a file refer to, read without running them.

    `names` are those of the classes and functions, as `module.name`, together with Python 3's names
    of those that Python 2 named differently. `found` tells whether there is a complete pickle at
    all, and `pieces` whether it refers to data that is stored outside of it.
    """

    names: tuple[str, ...]
    found: bool
    pieces: bool


def scan_pickles(stream: IO[bytes]) -> Pickles:
    """Scan the pickles at the stream's position without running them."""
    names: dict[str, None] = {}
    opcodes = done = 0
    pieces = protocol = False
    start = stream.tell()
    try:
        while done < _MOST_PICKLES and stream.read(1):
            stream.seek(start)
            inside: list[str] = []
            strings: list[str] = []
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name in {"GLOBAL", "INST"}:
                    inside.append(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL":
                    inside.append(".".join(strings[-2:]))
                elif isinstance(argument, str):
                    strings.append(argument)
                protocol = protocol or opcode.name == "PROTO"
                pieces = pieces or opcode.name in {"BINPERSID", "PERSID"}
                opcodes += 1
            for name in inside:
                names |= dict.fromkeys((name, python3_name(name)))
            done += 1
            start = stream.tell()
    except Exception:  # noqa: BLE001 - what follows is not a pickle; complete ones before it count
        pass
    # A few letters of any text may happen to form a pickle of the oldest protocol.
    found = done > 0 and (protocol or bool(names) or opcodes >= _FEWEST_OPCODES)
    return Pickles(tuple(names), found, pieces)


def python3_name(name: str) -> str:
    """Translate a name of Python 2 in a pickle to Python 3's, as the unpickler does."""
    module, _, rest = name.rpartition(".")
    if (module, rest) in NAME_MAPPING:
        return ".".join(NAME_MAPPING[module, rest])
    return f"{IMPORT_MAPPING.get(module, module)}.{rest}"


def shown(head: bytes) -> str:
    """The first bytes as printable text for a message."""
    return repr(head[:_SHOWN])


def _by_magic(head: bytes) -> Format | None:
    for magic, name, command in _MAGIC:
        if head.startswith(magic):
            return Format(name, _UNPACK.format(f"{command} FILE"))
    for magic, name, hint in _OTHERS:
        if head.startswith(magic):
            return Format(name, hint)
    return None


def _packed(head: bytes) -> Format | None:
    for magic, name, command, untar in _PACKED:
        if head.startswith(magic):
            if _tar(_unpacked(name, head)) is not None:
                unpack = _UNPACK.format(f"{untar} FILE -C FOLDER")
                return Format(f"a tar archive compressed with {name}", unpack)
            return Format(
                f"a file compressed with {name}",
                f"unpack it ({command} FILE > NEW) and give the new file",
            )
    return None


def _unpacked(name: str, head: bytes) -> bytes:
    """The beginning of the unpacked content; empty if it cannot be unpacked."""
    try:
        if name == "gzip":
            import zlib

            return zlib.decompressobj(31).decompress(head)
        if name == "bzip2":
            import bz2

            return bz2.BZ2Decompressor().decompress(head)
        import lzma

        return lzma.LZMADecompressor().decompress(head)
    except Exception:  # noqa: BLE001 - damaged, or this Python was built without the library
        return b""


def _tar(head: bytes) -> Format | None:
    """Recognise a tar by its header's checksum: the oldest tars have no magic number."""
    block = head[:_TAR_BLOCK]
    if len(block) < _TAR_BLOCK or not block[0]:
        return None
    try:
        stated = int(block[148:156].strip(b" \0"), 8)
    except ValueError:
        return None
    if stated != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        return None
    return Format("a tar archive", _UNPACK.format("tar -xf FILE -C FOLDER"))


def _model(head: bytes) -> Format | None:
    """Recognise models of other libraries, whose files have no magic number."""
    size = int.from_bytes(head[:8], "little")
    if head[8:10] in (b'{"', b"{}") and size < 10**9:
        return Format("a safetensors file", "load it with safetensors, save it with torch.save")
    # A protobuf whose first field is a small version number and whose next field is text.
    if head[:1] == b"\x08" and head[1:2] and 1 <= head[1] <= 20 and head[2:3] in (b"\x12", b":"):
        return Format("an ONNX model", "use the checkpoint that it was made from")
    return None


def _text(head: bytes) -> Format | None:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Format("text in UTF-16", "convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW")
    text = head.removeprefix(codecs.BOM_UTF8).strip()
    start = text[:64].lower()
    xml = start.startswith((b"<?xml", b"<!--", b"<error"))
    if _HTML.match(text) or (xml and b"<html" in text.lower()):
        return Format("an HTML page", _AGAIN)
    if xml:
        return Format("an XML document", _AGAIN)
    for beginnings, name, hint in _WORDS:
        if start.startswith(beginnings):
            return Format(name, hint)
    if not _is_text(head):
        return None
    kind = "JSON" if start.startswith((b"{", b"[")) else "text"
    return Format(f"{kind} that begins with {shown(text)}")


def _is_text(head: bytes) -> bool:
    if any((byte < ord(" ") and byte not in _PLAIN) or byte == _DELETE for byte in head):
        return False
    try:
        # The last character may be cut.
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True
