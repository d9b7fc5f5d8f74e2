"""Which instruction set the compiled scorer uses: the widest there is, or the one asked for."""

from __future__ import annotations

from dataclasses import dataclass

from sgraf_deploy.errors import UnavailableError

SETS = ("generic", "avx2", "avx512")
"""As in `scorer.h`, the wider the later; `generic` is what every processor of a kind runs."""

VARIABLE = "SGRAF_DEPLOY_ISA"
"""The environment variable that asks for one of them; empty is as good as unset."""


@dataclass(frozen=True)
class InstructionSets:
    """What the library was built for, what this processor runs, and which one is asked for."""

    built: tuple[str, ...]
    runnable: tuple[str, ...]
    wanted: str | None = None

    @property
    def usable(self) -> tuple[str, ...]:
        """Those that are built and that this processor runs; `generic` is always among them."""
        return tuple(name for name in self.built if name in self.runnable)

    @property
    def used(self) -> str:
        """The one asked for, else the widest.

        Raises UnavailableError for an unknown one, and one that is not built or does not run here.
        """
        if self.wanted is None:
            return self.usable[-1]
        if self.wanted in self.usable:
            return self.wanted
        hint = f"unset {VARIABLE}"
        if self.wanted in self.runnable:
            hint += ", or install the package with a newer C compiler (CC=…)"
        raise UnavailableError(
            f"{VARIABLE}: an instruction set of engine native",
            expected=" or ".join(self.usable),
            got=f"{self.wanted} ({self})",
            hint=hint,
        )

    def __str__(self) -> str:
        built, runnable = ", ".join(self.built), ", ".join(self.runnable)
        return f"built: {built}; this processor runs: {runnable}"


def named(bits: int) -> tuple[str, ...]:
    """The names of the sets whose bits are set."""
    return tuple(name for place, name in enumerate(SETS) if bits >> place & 1)
