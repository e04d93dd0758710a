"""The datasets that a validation or test evaluates, for any loop."""


def evaluated_sets(loop, stage: str) -> dict:
    """Return the built datasets by their keys in the config; empty without a loop.

    Args:
        loop: The built loop, or None.
        stage (str): 'val' or 'test'.
    """
    if loop is None:
        return {}
    parts = getattr(loop, 'sets', None)
    if parts is None:  # a loop of MMEngine
        return {f'{stage}_dataloader.dataset': loop.dataloader.dataset}
    return {part.key: part.loader.dataset for part in parts}
