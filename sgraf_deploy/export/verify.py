"""Verifies a published bundle: its files' hashes, and the gate once more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.export.gate_inputs import reference_outputs, synthetic_inputs
from sgraf_deploy.gate.explain import gate_explain
from sgraf_deploy.gate.graphs import gate_members
from sgraf_deploy.gate.inputs import GateInputs, GateReference, read_gate


def verify_bundle(bundle: Bundle, checkpoints: Sequence[Path] = ()) -> dict[str, Any]:
    """Check every file's hash and every graph's values; returns a parity report.

    The values must be those in `reference/gate.npz` or, with `checkpoints`, those that the literal
    loop computes from them on synthetic inputs. Raises BundleError for a damaged file or if both
    are missing, CheckpointError for another checkpoint, and GateError for a bound that is not met.
    """
    bundle.verify_files()
    return verify_values(bundle, *expected_values(bundle, checkpoints))


def verify_values(
    bundle: Bundle, inputs: GateInputs, references: Mapping[str, GateReference]
) -> dict[str, Any]:
    """Check every graph against the values of `expected_values`; returns a parity report.

    Raises GateError for a bound that is not met.
    """
    manifest = bundle.manifest
    parity = gate_members(bundle.path, manifest.members, manifest.combined, inputs, references)
    return parity | gate_explain(bundle.path, manifest.explain, inputs, references)


def expected_values(
    bundle: Bundle, checkpoints: Sequence[Path] = ()
) -> tuple[GateInputs, dict[str, GateReference]]:
    """The gate's inputs and every member's values for them; raises as `verify_bundle`."""
    members = bundle.manifest.members
    if not checkpoints:
        return read_gate(bundle.gate_path(), tuple(members))
    from sgraf_deploy.engines.torch.members import member_weights

    inputs = synthetic_inputs(next(iter(members.values())).config)
    return inputs, {
        name: reference_outputs(
            member.config,
            member_weights(bundle, name, checkpoints),
            inputs,
            fp8="fp8" in member.graphs,
        )
        for name, member in members.items()
    }
