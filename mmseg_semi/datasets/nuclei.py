"""Nuclei: microscopy images of the 2018 Data Science Bowl, at 160 pixels."""

from mmseg.registry import DATASETS

from .listed import ListedSegDataset


@DATASETS.register_module()
class NucleiDataset(ListedSegDataset):
    """Nuclei in microscopy images (BBBC038, CC0): background, nucleus, border of a nucleus.

    With ``metainfo=dict(classes=('background', 'nucleus'))`` the border belongs to the nucleus (label map 2 ->
    1).

    Args:
        **kwargs: See :class:`ListedSegDataset`.
    """

    METAINFO = dict(
        classes=('background', 'nucleus', 'border'),
        palette=[[0, 0, 0], [0, 160, 255], [255, 200, 0]],
    )

    @classmethod
    def get_label_map(cls, new_classes=None):
        """Same as the base class, but a border that is not a class becomes nucleus instead of void."""
        label_map = super().get_label_map(new_classes)
        names = cls.METAINFO['classes']
        if label_map is not None and 'border' not in new_classes:
            label_map[names.index('border')] = label_map[names.index('nucleus')]
        return label_map

    def _update_palette(self):
        # Border and nucleus would both add a color for one class.
        return super()._update_palette()[: len(self._metainfo['classes'])]
