"""CamVid: road scenes from a driving car, in the 11-class version of SegNet."""

from mmseg.registry import DATASETS

from .listed import ListedSegDataset


@DATASETS.register_module()
class CamVidDataset(ListedSegDataset):
    """CamVid with SegNet's 11 classes (Badrinarayanan et al., PAMI 2017), 480x360, 255 = void.

    ``tools/dataset_converters/camvid.py`` creates the files from the public copy.

    Args:
        **kwargs: See :class:`ListedSegDataset`. Set ``img_suffix='.png'`` if the converter wrote PNG images.
    """

    METAINFO = dict(
        classes=(
            'sky',
            'building',
            'pole',
            'road',
            'pavement',
            'tree',
            'sign',
            'fence',
            'car',
            'pedestrian',
            'bicyclist',
        ),
        palette=[
            [128, 128, 128],
            [128, 0, 0],
            [192, 192, 128],
            [128, 64, 128],
            [0, 0, 192],
            [128, 128, 0],
            [192, 128, 128],
            [64, 64, 128],
            [64, 0, 128],
            [64, 64, 0],
            [0, 128, 192],
        ],
    )
