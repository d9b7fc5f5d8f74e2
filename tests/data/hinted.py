"""What an error's hint says to type, typed."""

from __future__ import annotations

from sgraf_deploy.errors import SgrafDeployError


def type_python(error: SgrafDeployError) -> None:
    """Run the Python that a hint gives; where it ends, words may follow."""
    assert error.mend is not None
    code = error.mend[error.mend.index("import ") :].partition(", of the array that")[0]
    exec("\n".join(code.split("; ")), {})
