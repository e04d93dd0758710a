"""Checks before the first iteration, one function per kind of mistake."""
