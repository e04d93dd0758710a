"""What a check of data has found, and how it is told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

SHOWN = 5
"""Sentences of one kind of problem that a list of problems shows."""


@dataclass
class Report:
    """What a check found, a sentence each.

    Attributes:
        facts (list[str]): What is there.
        warnings (list[str]): What falsifies no result but may mislead.
        problems (dict[str, list[str]]): What stops or falsifies a training: kind of problem = sentences, such
            as one per file.
    """

    facts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: dict[str, list[str]] = field(default_factory=dict)

    def add_problem(self, sentence: str) -> None:
        """Add a problem that is the only one of its kind; the same sentence is added once."""
        self.problems[sentence] = [sentence]

    def add_problems(self, kind: str, sentences: Iterable[str]) -> None:
        """Add sentences, if there are any."""
        sentences = list(sentences)
        if sentences:
            self.problems.setdefault(kind, []).extend(sentences)

    @property
    def errors(self) -> list[str]:
        """One sentence for each kind of problem: the first, and how many there are."""
        return [
            said[0] if len(said) == 1 else f'{len(said)} {kind}, the first: {said[0]}'
            for kind, said in self.problems.items()
        ]

    def lines(self) -> list[str]:
        """The report for a reader: facts, warnings, errors, and their numbers."""
        return [
            *self.facts,
            *(f'warning: {sentence}' for sentence in self.warnings),
            *(f'error: {sentence}' for sentence in self.errors),
            f'{len(self.errors)} errors, {len(self.warnings)} warnings.',
        ]

    def listed(self, name: str) -> list[str]:
        """The problems and warnings of a part called ``name``; of many problems of a kind the first few."""
        lines = []
        for kind, sentences in self.problems.items():
            lines += [f'PROBLEM: {name}: {len(sentences)} {kind}:', *_first(sentences)]
        return [*lines, *(f'warning: {name}: {sentence}' for sentence in self.warnings)]


def _first(sentences: Sequence[str]) -> list[str]:
    rest = len(sentences) - SHOWN
    more = [f'  ... and {rest} more'] if rest > 0 else []
    return [*(f'  {sentence}' for sentence in sentences[:SHOWN]), *more]
