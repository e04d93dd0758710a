"""Partitions: the setting ``partition`` of a train dataset replaces ``{partition}`` in its lists.

``partition='classic/183'`` turns ``ann_file='splits/{partition}/labeled.txt'`` into
``'splits/classic/183/labeled.txt'``. The dataset types of this package do this when they are built. Code that
reads the children of a train dataset from its config must call :func:`fill_partition` first.

The placeholder is explicit on purpose: a list with an unfilled placeholder does not exist and raises an error,
while a child without ``ann_file`` would silently use the whole folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

PLACEHOLDER = '{partition}'
KEY = 'train_dataloader.dataset.partition'


def fill_partition(dataset: Mapping) -> Mapping:
    """Return a train dataset's config with ``partition`` filled into its lists and removed.

    Args:
        dataset: Config of ``train_dataloader.dataset``; it does not change. It is returned itself if it has
            neither ``partition`` nor lists with ``{partition}``.

    Raises:
        ValueError: A list needs a partition but none is set, or one is set but no list needs it.
    """
    if 'partition' not in dataset and not waits_for_partition(dataset):
        return dataset
    rest = {key: value for key, value in dataset.items() if key != 'partition'}
    kind: Any = type(dataset)  # a dict or mmengine's ConfigDict
    return kind(fill_lists(rest, dataset.get('partition')))


def fill_lists(config: Mapping, partition: str | None) -> dict:
    """Same as :func:`fill_partition`, for the arguments of a dataset and a separate partition."""
    waiting = next(_waiting(config), None)
    if partition is None:
        if waiting is None:
            return dict(config)
        raise ValueError(
            f'{KEY} is not set, and {waiting} needs it. Set {KEY}, for example to classic/183 or '
            f'1_8/seed0, or replace {PLACEHOLDER} in the list.'
        )
    if not isinstance(partition, str) or not partition.strip('/'):
        raise ValueError(
            f'{KEY} must be the folder of the lists, such as classic/183, got {partition!r}.'
        )
    if waiting is None:
        raise ValueError(
            f'{KEY}={partition} is set, and no list of the dataset has {PLACEHOLDER} for it. Leave it out, or '
            f"write {PLACEHOLDER} where the lists differ, as in ann_file='splits/{PLACEHOLDER}/labeled.txt'."
        )
    return _filled(dict(config), partition.strip('/'))


def waits_for_partition(config: Mapping) -> bool:
    """Whether a list in a dataset's config contains ``{partition}``."""
    return next(_waiting(config), None) is not None


def counted_images(dataset: Mapping) -> dict | None:
    """Return the config of ``counted`` of a train dataset; its ``data_root`` defaults to the dataset's."""
    counted = dataset.get('counted')
    if counted is None:
        return None
    root = dataset.get('data_root')
    return {**({} if root is None else {'data_root': root}), **counted}


def numbered(partition: str | None) -> int | None:
    """Return the number of labeled images in a partition's name, such as 183 of ``classic/183``; else None."""
    last = (partition or '').rpartition('/')[2]
    return int(last) if last.isdecimal() else None


def check_partition(partition: str | None, found: int) -> None:
    """Raise ValueError if the number in a partition's name differs from the length of its labeled list.

    Args:
        partition: Partition of the train dataset.
        found: Number of different images in its labeled list.
    """
    said = numbered(partition)
    if said is not None and said != found:
        raise ValueError(
            f'{KEY}={partition} says {said} labeled images, and its list has {found}. Correct the list, name '
            'the folder of another partition, or, if the number is not a number of images, give the folder a '
            f'name that is not a number, such as fold_{said}.'
        )


def _waiting(config: Any, key: str = 'train_dataloader.dataset') -> Iterator[str]:
    """Yield key and value of each list that contains the placeholder."""
    if isinstance(config, Mapping):
        for name, value in config.items():
            if name == 'ann_file' and isinstance(value, str) and PLACEHOLDER in value:
                yield f'{key}.ann_file={value}'
            elif name not in ('pipeline', 'metainfo'):
                yield from _waiting(value, f'{key}.{name}')
    elif isinstance(config, (list, tuple)):
        for index, value in enumerate(config):
            yield from _waiting(value, f'{key}[{index}]')


def _filled(config: Any, partition: str) -> Any:
    if isinstance(config, Mapping):
        kind: Any = type(config)
        return kind(
            {
                name: value.replace(PLACEHOLDER, partition)
                if name == 'ann_file' and isinstance(value, str)
                else _filled(value, partition)
                for name, value in config.items()
            }
        )
    if isinstance(config, (list, tuple)):
        return type(config)(_filled(value, partition) for value in config)
    return config
