"""Seeds that are the same on every machine, in every process and on every day: hashes of what they are for."""

from __future__ import annotations

import hashlib

from gptzoo.files import canonical_json


def stable_seed(*parts: object) -> int:
    """A seed in [0, 2**63) from parts that JSON can hold: `stable_seed(seed, "data", epoch)`."""
    digest = hashlib.sha256(canonical_json(parts).encode("ascii")).digest()
    return int.from_bytes(digest[:8], "big") & (2**63 - 1)
