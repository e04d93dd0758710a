"""When things happen in a training: hooks, loops, optimizer wrappers."""

from .hooks import (
    AtomicCheckpointHook,
    FiniteLossHook,
    MeanTeacherHook,
    PrototypeInitHook,
    PseudoLabelMonitorHook,
    ResumableRandomnessHook,
    StartupCheckHook,
)
from .optim import AutocastOptimWrapper, NetworkOptimWrapperConstructor
from .runner import TeacherStudentTestLoop, TeacherStudentValLoop

__all__ = [
    'AtomicCheckpointHook',
    'AutocastOptimWrapper',
    'FiniteLossHook',
    'MeanTeacherHook',
    'NetworkOptimWrapperConstructor',
    'PrototypeInitHook',
    'PseudoLabelMonitorHook',
    'ResumableRandomnessHook',
    'StartupCheckHook',
    'TeacherStudentTestLoop',
    'TeacherStudentValLoop',
]
