"""Classes of a teacher as classes of a student, where the two were not trained on the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from mmseg_semi.datasets.labels import VOID

from .masks import voc_colors


class LabelMap(NamedTuple):
    """The student's class for each class of the teacher.

    Attributes:
        entries (Mapping): Name or index of a class of the teacher = name or index of a class of the student, or
            255. Several may become one; a class without an entry, or with 255, is ignored: its pixels are void.
        classes (tuple[str, ...]): Of the student, in the order of their indices.
        palette (list, optional): RGB per class of the student.
    """

    entries: Mapping
    classes: tuple[str, ...]
    palette: list | None = None

    def settings(self) -> dict:
        """The entries as JSON holds them, and the classes."""
        entries = {str(key): value for key, value in self.entries.items()}
        return {'entries': entries, 'classes': list(self.classes)}

    def meta(self) -> dict:
        """Classes and palette of the masks; of a student without colors PASCAL VOC's, not the teacher's."""
        return dict(classes=self.classes, palette=self.palette or voc_colors(len(self.classes)))

    def targets(self) -> dict:
        """The student's index of each entry, 255 for ignored ones.

        Raises:
            ValueError: there is no entry, or one names a class that the student does not have.
        """
        if not isinstance(self.entries, Mapping) or not self.entries:
            raise ValueError(
                f"teacher.label_map={self.entries!r} maps no class. Give a dict of the teacher's classes and "
                "the student's, such as dict(car='vehicle', sky=255)."
            )
        found = {}
        for key, value in self.entries.items():
            index = _index(value, self.classes)
            if index is None and value != VOID:
                raise ValueError(
                    f'teacher.label_map[{key!r}]={value!r} is not a class of the student. Choose one of '
                    f'{_listed(self.classes)}, or {VOID} to ignore the class.'
                )
            found[key] = VOID if index is None else index
        return found

    def indices(self, names: Sequence[str] | None, number: int, source: str) -> list[int]:
        """The student's index of every class of a teacher, 255 for ignored ones.

        Args:
            names: of the teacher's classes; None where nothing says them.
            number: of the teacher's classes.
            source: of the teacher, as errors name it.

        Raises:
            ValueError: an entry names a class that the teacher or the student does not have.
        """
        found = [VOID] * number
        for key, target in self.targets().items():
            index = _index(key, names or (), number)
            if index is None:
                known = (
                    f'Choose one of {_listed(names)}'
                    if names
                    else f'It has no class names, so give indices from 0 to {number - 1}'
                )
                raise ValueError(
                    f'teacher.label_map has the class {key!r}, which {source} does not have. {known}.'
                )
            found[index] = target
        return found

    def told(self, indices: Sequence[int], names: Sequence[str] | None) -> str:
        """One line for the log on what becomes of the teacher's classes."""
        names = names or [f'class {i}' for i in range(len(indices))]
        groups = {
            name: [names[i] for i, target in enumerate(indices) if target == student]
            for student, name in enumerate(self.classes)
        }
        ignored = sum(target == VOID for target in indices)
        said = ', '.join(f'{name} = {" + ".join(g)}' for name, g in groups.items() if g)
        unknown = [name for name, group in groups.items() if not group]
        alone = f'; {", ".join(unknown)} from labeled images alone' if unknown else ''
        return f"The student's classes by the teacher's: {said}{alone}; {ignored} ignored (void)."


def merge_classes(probs: Tensor, indices: Sequence[int], number: int) -> Tensor:
    """Add up the probabilities of the classes that become one.

    Args:
        probs (Tensor): (N, C, H, W), of the teacher's classes.
        indices (Sequence[int]): Of each of them the student's class, 255 for ignored ones.
        number (int): Of the student's classes.

    Returns:
        Tensor: (N, number + 1, H, W); the last channel is that of all ignored classes.
    """
    merged = probs.new_zeros(len(probs), number + 1, *probs.shape[2:])
    # Not by index_add_, whose order of additions on a GPU differs from run to run.
    for source, target in enumerate(indices):
        merged[:, number if target == VOID else target] += probs[:, source]
    return merged


def _index(key, names: Sequence[str], number: int | None = None) -> int | None:
    """The index that a name or an index means; None if there is no such class."""
    if isinstance(key, int) and not isinstance(key, bool):
        return key if 0 <= key < (len(names) if number is None else number) else None
    return list(names).index(key) if key in names else None


def _listed(names: Sequence[str], most: int = 20) -> str:
    shown = ', '.join(map(str, names[:most]))
    return shown if len(names) <= most else f'{shown}, … ({len(names)} in all)'
