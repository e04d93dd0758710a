"""The sets that a validation or test evaluates, whatever its loop."""


def evaluated_sets(loop, stage: str) -> dict:
    """Built datasets by their keys in the config; none without a loop.

    Args:
        loop: built, or None.
        stage (str): 'val' or 'test'.
    """
    if loop is None:
        return {}
    parts = getattr(loop, 'sets', None)
    if parts is None:  # of a loop of MMEngine's
        return {f'{stage}_dataloader.dataset': loop.dataloader.dataset}
    return {part.key: part.loader.dataset for part in parts}
