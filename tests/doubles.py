"""Imported by a config (`custom_imports`): its networks, images and losses are float64.

So trainings can be compared that sum in different orders: in float32, rounding decides between two classes that
are almost as probable, and from one other pseudo-label on their weights part.
"""

import torch

torch.set_default_dtype(torch.float64)
