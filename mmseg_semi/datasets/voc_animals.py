"""VOC animals: the images of Pascal VOC 2012 that show animals, at 160 pixels."""

from mmseg.registry import DATASETS

from .listed import ListedSegDataset


@DATASETS.register_module()
class VOCAnimalsDataset(ListedSegDataset):
    """Images of VOC 2012 with a cat, cow, dog, horse or sheep; 255 is void and every other object.

    ``tools/dataset_converters/voc_animals.py`` creates the files from a VOC 2012 folder with augmented masks.

    Args:
        **kwargs: See :class:`ListedSegDataset`.
    """

    METAINFO = dict(
        classes=('background', 'cat', 'cow', 'dog', 'horse', 'person', 'sheep'),
        # Colors of VOC.
        palette=[
            [0, 0, 0],
            [64, 0, 0],
            [64, 128, 0],
            [64, 0, 128],
            [192, 0, 128],
            [192, 128, 128],
            [128, 64, 0],
        ],
    )
