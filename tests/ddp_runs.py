"""What each rank does in the tests of the settings of the wrapper, by a Runner."""

from __future__ import annotations

from mmengine.hooks import Hook
from tiny_run import build_runner, tiny_config


class StartedHook(Hook):
    """Notes what the wrapper is like when the training starts."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.seen = None

    def before_train(self, runner) -> None:
        model = runner.model
        updates = getattr(model.module, 'updates', [None])
        self.seen = [
            {
                'find_unused_parameters': wrapper.find_unused_parameters,
                'static_graph': wrapper.static_graph,
                'broadcast_buffers': wrapper.broadcast_buffers,
            }
            for wrapper in (model.of_update(name) for name in updates)
        ]


def start_each(rank: int, folder: str, *runs: dict) -> list:
    """Train one iteration for each of some settings; what the wrappers had, or the error."""
    found = []
    for index, settings in enumerate(runs):
        config = tiny_config(f'{folder}/{index}', train_cfg__max_iters=1, **settings)
        config.launcher = 'pytorch'
        try:
            runner = build_runner(config)
            hook = StartedHook()
            runner.register_hook(hook)
            runner.train()
        except ValueError as error:
            found.append(str(error))
        else:
            found.append(hook.seen)
    return found
