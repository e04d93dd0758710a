"""When things happen in a training: hooks, loops, optimizer wrappers."""

from .hooks import (
    AdaptiveRampUpHook,
    AtomicCheckpointHook,
    ClassCountHook,
    ClassDistributionHook,
    CostHook,
    FiniteLossHook,
    IterationHook,
    MeanTeacherHook,
    PrototypeInitHook,
    PrototypeMeanHook,
    PseudoLabelMonitorHook,
    ReliableSelectionHook,
    ResumableRandomnessHook,
    StartupCheckHook,
    StepSchedulerHook,
)
from .optim import (
    AutocastOptimWrapper,
    NetworkOptimWrapperConstructor,
    NetworkOptimWrapperDict,
)
from .runner import StagedRunner, TeacherStudentTestLoop, TeacherStudentValLoop
from .schedulers import FinalPolyLR, NonzeroPolyLR
from .train_loops import WholeStepEpochTrainLoop, WholeStepIterTrainLoop

__all__ = [
    'AdaptiveRampUpHook',
    'AtomicCheckpointHook',
    'AutocastOptimWrapper',
    'ClassCountHook',
    'ClassDistributionHook',
    'CostHook',
    'FinalPolyLR',
    'FiniteLossHook',
    'IterationHook',
    'MeanTeacherHook',
    'NetworkOptimWrapperConstructor',
    'NetworkOptimWrapperDict',
    'NonzeroPolyLR',
    'PrototypeInitHook',
    'PrototypeMeanHook',
    'PseudoLabelMonitorHook',
    'ReliableSelectionHook',
    'ResumableRandomnessHook',
    'StagedRunner',
    'StartupCheckHook',
    'StepSchedulerHook',
    'TeacherStudentTestLoop',
    'TeacherStudentValLoop',
    'WholeStepEpochTrainLoop',
    'WholeStepIterTrainLoop',
]
