"""What lies between an encoder and a decode head where the two do not fit as they are."""

from .token_norm import TokenNorm

__all__ = ['TokenNorm']
