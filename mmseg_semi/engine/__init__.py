"""When things happen in a training: hooks, loops, optimizer wrappers."""

from .hooks import (
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
)
from .optim import AutocastOptimWrapper, NetworkOptimWrapperConstructor
from .runner import StagedRunner, TeacherStudentTestLoop, TeacherStudentValLoop

__all__ = [
    'AtomicCheckpointHook',
    'AutocastOptimWrapper',
    'ClassCountHook',
    'ClassDistributionHook',
    'CostHook',
    'FiniteLossHook',
    'IterationHook',
    'MeanTeacherHook',
    'NetworkOptimWrapperConstructor',
    'PrototypeInitHook',
    'PrototypeMeanHook',
    'PseudoLabelMonitorHook',
    'ReliableSelectionHook',
    'ResumableRandomnessHook',
    'StagedRunner',
    'StartupCheckHook',
    'TeacherStudentTestLoop',
    'TeacherStudentValLoop',
]
