"""What commands say of the members that were left out."""

from __future__ import annotations

from collections.abc import Mapping


def shares_line(shares: Mapping[str, float], cannot: str) -> str:
    """Which share of the pairs each member scored, and what the other pairs `cannot` do."""
    if min(shares.values()) == 1.0:
        return "every member scored every pair"
    falling = sorted(shares.items(), key=lambda each: -each[1])
    each = ", ".join(f"{name.upper()} {share:.1%}" for name, share in falling)
    return f"pairs scored: {each}; the others cannot {cannot}"
