"""Collect the results of a data check and format them as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

SHOWN = 5
"""Number of sentences to show for each kind of problem."""


@dataclass
class Report:
    """Results of a check, one sentence each.

    Attributes:
        facts (list[str]): Contents of the data.
        warnings (list[str]): Findings that may mislead but do not invalidate results.
        problems (dict[str, list[str]]): Findings that stop training or invalidate results: kind of problem =
            sentences, for example one per file.
    """

    facts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: dict[str, list[str]] = field(default_factory=dict)

    def add_problem(self, sentence: str) -> None:
        """Add a problem that is the only one of its kind; equal sentences are added once."""
        self.problems[sentence] = [sentence]

    def add_problems(self, kind: str, sentences: Iterable[str]) -> None:
        """Add sentences, if there are any."""
        sentences = list(sentences)
        if sentences:
            self.problems.setdefault(kind, []).extend(sentences)

    @property
    def errors(self) -> list[str]:
        """One sentence for each kind of problem: the first one, and their number."""
        return [
            said[0] if len(said) == 1 else f'{len(said)} {kind}, the first: {said[0]}'
            for kind, said in self.problems.items()
        ]

    def lines(self) -> list[str]:
        """Return the report as text lines: facts, warnings, errors, and their numbers."""
        return [
            *self.facts,
            *(f'warning: {sentence}' for sentence in self.warnings),
            *(f'error: {sentence}' for sentence in self.errors),
            f'{len(self.errors)} errors, {len(self.warnings)} warnings.',
        ]

    def listed(self, name: str) -> list[str]:
        """Return problems and warnings under the heading ``name``, with the first few problems of each kind."""
        lines = []
        for kind, sentences in self.problems.items():
            lines += [f'PROBLEM: {name}: {len(sentences)} {kind}:', *_first(sentences)]
        return [*lines, *(f'warning: {name}: {sentence}' for sentence in self.warnings)]


def _first(sentences: Sequence[str]) -> list[str]:
    rest = len(sentences) - SHOWN
    more = [f'  ... and {rest} more'] if rest > 0 else []
    return [*(f'  {sentence}' for sentence in sentences[:SHOWN]), *more]
