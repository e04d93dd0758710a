"""Loops that evaluate every network of a method, and the runner of methods with several stages."""

from .staged_runner import StagedRunner
from .stages import LabelStage, SelectStage, Stage, SupervisedStage, TrainStage
from .teacher_stage import TeacherCheckpointStage, TeacherStage
from .teacher_student_loop import TeacherStudentTestLoop, TeacherStudentValLoop

__all__ = [
    'LabelStage',
    'SelectStage',
    'Stage',
    'StagedRunner',
    'SupervisedStage',
    'TeacherCheckpointStage',
    'TeacherStage',
    'TeacherStudentTestLoop',
    'TeacherStudentValLoop',
    'TrainStage',
]
