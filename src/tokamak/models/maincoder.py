"""Maincoder: Llama with a norm on each query and key head, after they have turned."""

from __future__ import annotations

from tokamak.models import hunyuan
from tokamak.models.llama import Config

__all__ = ["Config", "Maincoder"]


class Maincoder(hunyuan.Hunyuan):
    """The same block."""
