"""What an error's hint says to type, typed."""

from __future__ import annotations

from sgraf_deploy.errors import SgrafDeployError


def type_python(error: SgrafDeployError, **places: object) -> None:
    """Run the Python that a hint gives, its words in capitals replaced by these places."""
    exec("\n".join(python_in(error, "import ", **places).split("; ")), {})


def python_in(error: SgrafDeployError, start: str, **places: object) -> str:
    """The Python of a hint that begins so: the most that compiles and ends in a parenthesis."""
    assert error.hint is not None
    code = error.hint[error.hint.index(start) :]
    for name, place in places.items():
        code = code.replace(f"'{name}'", repr(str(place)))
    ends = (end for end in range(len(code), 0, -1) if code[end - 1] in ")]")
    return next(code[:end] for end in ends if _compiles(code[:end]))


def _compiles(code: str) -> bool:
    try:
        compile(code, "hint", "exec")
    except SyntaxError:
        return False
    return True
