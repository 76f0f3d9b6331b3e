"""How words of SLURM are refused."""

from __future__ import annotations


class WrongError(ValueError):
    """A text is not what SLURM's grammar allows, or asks for what there is not; the sentence."""
