"""Necks that adapt an encoder to a decode head."""

from .token_norm import TokenNorm

__all__ = ['TokenNorm']
