"""What the fork server of the tests imports once."""

import gc
import importlib

from yapf.yapflib import yapf_api

# Laying out configs as pretty Python is most of the time of a tiny training; mmengine imports this function.
yapf_api.FormatCode = lambda code, **kwargs: (code, False)

for _name in (
    'matplotlib.backends.backend_agg',
    'matplotlib.pyplot',
    'mmengine.runner',
    'mmseg.apis',
    'mmseg_semi',
):
    importlib.import_module(_name)
# Every Runner asks the compilers for their versions.
importlib.import_module('mmengine.runner.runner').collect_env = dict
importlib.import_module('torch').set_num_threads(1)
# BaseDataset collects garbage, which would walk through all that was imported.
gc.freeze()
