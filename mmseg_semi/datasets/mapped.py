"""Masks whose values are other numbers than the class indices, such as 0 and 255 for two classes."""

from collections.abc import Mapping

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from .paths import check_data_paths

_LAST = 255


@DATASETS.register_module()
class MappedSegDataset(BaseSegDataset):
    """A folder or a list of images and masks, as ``BaseSegDataset``, with the class of each value of the masks.

    MMSegmentation's loader applies the map, in training and evaluation, and this package's checks count by it.

    Args:
        label_map: value of a mask = class index, or 255 for void, as ``{255: 1}``. Other
            values stay as they are.
        of: 'BaseSegDataset' where a base config has ``type='CheckedDataset', of='BaseSegDataset'``, so that
            the same two settings change both. Files are checked as by ``CheckedDataset`` in any case.
        **kwargs: as for :class:`mmseg.datasets.BaseSegDataset`.

    Raises:
        FileNotFoundError: a folder or the list does not exist.
        ValueError: ``of`` another class, a value or an index outside of 0 ... 255, or ``reduce_zero_label``,
            which would come first.
    """

    def __init__(self, label_map: Mapping[int, int], of: str = 'BaseSegDataset', **kwargs) -> None:
        if of != 'BaseSegDataset':
            raise ValueError(
                f'MappedSegDataset of={of!r} takes the place of BaseSegDataset alone. Write masks of class '
                'indices for other datasets (tools/dataset_converters/folders.py --ids).'
            )
        self._given = {int(value): int(index) for value, index in label_map.items()}
        wrong = [pair for pair in self._given.items() if not 0 <= min(pair) <= max(pair) <= _LAST]
        if wrong or not self._given:
            raise ValueError(
                f'MappedSegDataset label_map={dict(label_map)} must map values of masks (0 to {_LAST}) to '
                f'class indices ({_LAST} is void), such as {{255: 1}}.'
            )
        if kwargs.get('reduce_zero_label'):
            raise ValueError(
                'MappedSegDataset reduce_zero_label=True would make 0 void before label_map is applied. Leave '
                'it out and say so in label_map: {0: 255, 1: 0, 2: 1, ...}.'
            )
        check_data_paths(dict(type=type(self), **kwargs))
        super().__init__(**kwargs)

    def get_label_map(self, new_classes=None) -> dict[int, int]:
        """The map that was given; ``metainfo`` names the classes that it leads to."""
        return self._given
