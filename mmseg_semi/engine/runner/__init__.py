"""Loops that evaluate every network of a method."""

from .teacher_student_loop import TeacherStudentTestLoop, TeacherStudentValLoop

__all__ = ['TeacherStudentTestLoop', 'TeacherStudentValLoop']
