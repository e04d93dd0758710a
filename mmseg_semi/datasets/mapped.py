"""Masks whose values differ from the class indices, such as 0 and 255 for two classes."""

from collections.abc import Mapping

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from .paths import check_data_paths

_LAST = 255


@DATASETS.register_module()
class MappedSegDataset(BaseSegDataset):
    """A ``BaseSegDataset`` with a map from mask values to class indices.

    MMSegmentation's loader applies the map in training and evaluation. The checks of this package use it too.

    Args:
        label_map: Mask value = class index, or 255 for void, such as ``{255: 1}``. Other values do not change.
        of: Must be 'BaseSegDataset'. It allows a config to replace ``type='CheckedDataset',
            of='BaseSegDataset'`` of its base by changing only ``type``. Files are always checked as by
            ``CheckedDataset``.
        **kwargs: See :class:`mmseg.datasets.BaseSegDataset`.

    Raises:
        FileNotFoundError: A folder or the list does not exist.
        ValueError: ``of`` is another class, a value or index is not in 0 ... 255, or ``reduce_zero_label`` is
            set, which would apply before the map.
    """

    def __init__(self, label_map: Mapping[int, int], of: str = 'BaseSegDataset', **kwargs) -> None:
        if of != 'BaseSegDataset':
            raise ValueError(
                f'MappedSegDataset of={of!r} must be BaseSegDataset. For other datasets, write masks of class '
                'indices (tools/dataset_converters/folders.py --ids).'
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
        """Return the given map; ``metainfo`` names the resulting classes."""
        return self._given
