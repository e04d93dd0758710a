"""Map the classes of a teacher to the classes of a student that was trained on other classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from mmseg_semi.datasets.labels import VOID

from .masks import voc_colors


class LabelMap(NamedTuple):
    """The student's class for each class of the teacher.

    Attributes:
        entries (Mapping): Teacher class (name or index) = student class (name or index) or 255. Several classes
            may map to one. Classes without an entry, or with 255, are ignored: their pixels are void.
        classes (tuple[str, ...]): Classes of the student, in the order of their indices.
        palette (list, optional): RGB color of each class of the student.
    """

    entries: Mapping
    classes: tuple[str, ...]
    palette: list | None = None

    def settings(self) -> dict:
        """Return the entries in JSON form, and the classes."""
        entries = {str(key): value for key, value in self.entries.items()}
        return {'entries': entries, 'classes': list(self.classes)}

    def meta(self) -> dict:
        """Classes and palette of the masks; without a student palette, PASCAL VOC's colors."""
        return dict(classes=self.classes, palette=self.palette or voc_colors(len(self.classes)))

    def targets(self) -> dict:
        """Return the student's index of each entry, 255 for ignored ones.

        Raises:
            ValueError: There is no entry, or an entry names a class that the student does not have.
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
        """Return the student's index of every class of a teacher, 255 for ignored ones.

        Args:
            names: Names of the teacher's classes; None if unknown.
            number: Number of the teacher's classes.
            source: Name of the teacher in errors.

        Raises:
            ValueError: An entry names a class that the teacher or the student does not have.
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
        """Return one line for the log that describes the mapping of the teacher's classes."""
        names = names or [f'class {i}' for i in range(len(indices))]
        groups = {
            name: [names[i] for i, target in enumerate(indices) if target == student]
            for student, name in enumerate(self.classes)
        }
        ignored = sum(target == VOID for target in indices)
        said = ', '.join(f'{name} = {" + ".join(g)}' for name, g in groups.items() if g)
        unknown = [name for name, group in groups.items() if not group]
        alone = f'; {", ".join(unknown)} only from labeled images' if unknown else ''
        return f"The student's classes by the teacher's: {said}{alone}; {ignored} ignored (void)."


def merge_classes(probs: Tensor, indices: Sequence[int], number: int) -> Tensor:
    """Add up the probabilities of classes that map to one class.

    Args:
        probs (Tensor): Probabilities of the teacher's classes, (N, C, H, W).
        indices (Sequence[int]): The student's class of each teacher class, 255 for ignored ones.
        number (int): Number of the student's classes.

    Returns:
        Tensor: (N, number + 1, H, W); the last channel is the sum of all ignored classes.
    """
    merged = probs.new_zeros(len(probs), number + 1, *probs.shape[2:])
    # index_add_ is not deterministic on a GPU: the order of additions varies.
    for source, target in enumerate(indices):
        merged[:, number if target == VOID else target] += probs[:, source]
    return merged


def _index(key, names: Sequence[str], number: int | None = None) -> int | None:
    """Return the index for a name or an index; None if there is no such class."""
    if isinstance(key, int) and not isinstance(key, bool):
        return key if 0 <= key < (len(names) if number is None else number) else None
    return list(names).index(key) if key in names else None


def _listed(names: Sequence[str], most: int = 20) -> str:
    shown = ', '.join(map(str, names[:most]))
    return shown if len(names) <= most else f'{shown}, … ({len(names)} in all)'
