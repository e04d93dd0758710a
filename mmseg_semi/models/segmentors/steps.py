"""The training step of all methods: the clock, one or several updates, and modules updated once per step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps

from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor
from torch.optim import Optimizer

from ..batch import Batch
from ..clock import Clock
from ..memory import OncePerStep


class TrainingSteps:
    """Run the updates of a method, each with its own optimizer wrapper."""

    #: Optimizer step of the current iteration.
    clock = Clock()
    #: Whether later updates wait for the first optimizer step and then use all micro-batches of the step.
    updates_in_turn = True
    #: Micro-batches of the current step that later updates have not used yet.
    _held: tuple[Batch, ...] = ()

    def train_step(
        self, data: dict, optim_wrapper: OptimWrapper | OptimWrapperDict, call=None
    ) -> dict[str, Tensor]:
        """Preprocess a batch, compute the losses and update the weights, one update after the other.

        With gradient accumulation, the images and labels of the micro-batches are stored without graphs until
        the first optimizer has stepped. Later updates then use all of them.

        Args:
            data (dict): A collated batch.
            optim_wrapper (OptimWrapper | OptimWrapperDict): One wrapper for each update.
            call (callable, optional): The SemiDistributedDataParallel around this module. Forward passes with
                gradients go through it. Default: this module.

        Returns:
            dict[str, Tensor]: Scalars for the log.

        Raises:
            ValueError: The number of optimizer wrappers differs from the number of updates.
        """
        wrappers = self._wrappers_of(optim_wrapper)
        (first, wrapper), *later = wrappers.items()
        with self._stepping(wrapper) as committed:
            batch = self.batch_of(**self.data_preprocessor(data, True))
            log_vars = self._make_update(first, wrapper, batch, call)
        if later:
            self._held = (*self._held, batch)
            if wrapper.should_update() or not self.updates_in_turn:
                held, self._held = self._held, ()
                for name, wrapper in later:
                    terms = [self._make_update(name, wrapper, one, call) for one in held]
                    means = {key: sum(one[key] for one in terms) / len(terms) for key in terms[0]}
                    log_vars = {**log_vars, **means, 'loss': log_vars['loss'] + means['loss']}
        return {**log_vars, **committed}

    def _wrappers_of(self, optim_wrapper) -> dict[str, OptimWrapper]:
        several = isinstance(optim_wrapper, OptimWrapperDict)
        if several != (len(self.updates) > 1):
            raise ValueError(
                f'{type(self).__name__} needs {len(self.updates)} optimizer wrapper(s) and got a '
                f'{type(optim_wrapper).__name__}. Set '
                "optim_wrapper.constructor='NetworkOptimWrapperConstructor'."
            )
        names = self.updates
        return (
            {n: optim_wrapper[n] for n in names} if several else {next(iter(names)): optim_wrapper}
        )

    def _make_update(
        self, name: str, wrapper: OptimWrapper, batch: Batch, call
    ) -> dict[str, Tensor]:
        """Run one update on one micro-batch and return its scalars for the log."""
        update = self if call is None else call.of_update(name)
        with wrapper.optim_context(update):
            losses = update(batch, mode=name)
        parsed, log_vars = self.parse_losses(losses)
        wrapper.update_params(parsed)
        return log_vars

    @contextmanager
    def _stepping(self, wrapper: OptimWrapper) -> Iterator[dict[str, Tensor]]:
        """Read the clock, and update the modules of type OncePerStep after the optimizer step.

        Subclasses of :class:`~mmseg_semi.models.memory.OncePerStep` collect values during the micro-batches of
        a step. The step of the optimizer commits them. If a gradient scaler skips the step (except that of a
        fused optimizer), the collected values are discarded.

        Yields:
            dict[str, Tensor]: Scalars for the log, filled when the optimizer has stepped.
        """
        self.clock = Clock.of(wrapper)
        modules = [module for module in self.modules() if isinstance(module, OncePerStep)]
        if self.clock.begins_step:
            self._held = ()
            for module in modules:
                module.discard()
        committed: dict[str, Tensor] = {}

        def commit() -> None:
            for module in modules:
                committed.update(module.commit())

        with _after_step(wrapper.optimizer, commit):
            yield committed


@contextmanager
def _after_step(optimizer: Optimizer, function: Callable[[], None]) -> Iterator[None]:
    """Call a function after each step of an optimizer.

    PyTorch's step hooks are not enough: optimizers of PyTorch 2.1 call none after the first torch.compile.
    """
    step, patched_before = optimizer.step, 'step' in vars(optimizer)

    # Gradient scalers read the signature.
    @wraps(step)
    def step_and_call(*args, **kwargs):
        result = step(*args, **kwargs)
        function()
        return result

    optimizer.step = step_and_call
    try:
        yield
    finally:
        if patched_before:
            optimizer.step = step
        else:
            del optimizer.step
