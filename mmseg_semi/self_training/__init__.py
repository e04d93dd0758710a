"""Procedures of self-training: pseudo-labels, reliability scores, and their evaluation.

Call each of them on every process of a job. It writes its results image by image to one folder. The same call
continues an interrupted one, and returns immediately if the folder is complete.
"""

from .images import prediction_pipeline
from .labeling import pseudo_label
from .quality import measure_quality, network_names, quality_table
from .selection import select_reliable
from .truth import report_truth

__all__ = [
    'measure_quality',
    'network_names',
    'prediction_pipeline',
    'pseudo_label',
    'quality_table',
    'report_truth',
    'select_reliable',
]
