"""Install mmseg_semi; its configs and tools travel along in mmseg_semi/.mim, where mmengine looks."""

import os
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHIPPED = ('configs', 'tools', 'model-index.yml')


class BuildWithMim(build_py):
    """Adds `.mim`: copied into a wheel, linked into the checkout for an editable install.

    The links mean that an edited config is the installed one. A wheel is filled from the top-level
    folders, never from links that an editable install left behind.
    """

    def run(self):
        super().run()
        if getattr(self, 'editable_mode', False):
            self._fill(ROOT / 'mmseg_semi' / '.mim', _link)
        else:
            self._fill(Path(self.build_lib) / 'mmseg_semi' / '.mim', _copy)

    def _fill(self, mim, place):
        if mim.exists():
            shutil.rmtree(mim)
        mim.mkdir(parents=True)
        for name in SHIPPED:
            place(ROOT / name, mim / name)


def _link(source, target):
    try:
        target.symlink_to(os.path.relpath(source, target.parent), source.is_dir())
    except OSError:  # Windows allows links only to administrators and developers
        _copy(source, target)


def _copy(source, target):
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns('__pycache__', '*.py[cod]'))
    else:
        shutil.copy2(source, target)


def version():
    """Read without importing the package, which would need the stack."""
    names = {}
    exec((ROOT / 'mmseg_semi' / 'version.py').read_text(encoding='utf-8'), names)
    return names['__version__']


def requirements(name):
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    return [line for line in lines if line and not line.startswith('#')]


setup(
    name='mmseg_semi',
    version=version(),
    description='Semi-supervised semantic segmentation inside MMSegmentation',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='the mmseg_semi authors',
    license='Apache-2.0',
    packages=find_packages(include=['mmseg_semi', 'mmseg_semi.*']),
    package_data={'mmseg_semi': ['py.typed'], 'mmseg_semi.datasets': ['fingerprints.json']},
    include_package_data=False,
    python_requires='>=3.10',
    install_requires=requirements('runtime'),
    extras_require={
        name: requirements(name) for name in ('onedl', 'openmmlab', 'tiff', 'timm', 'test', 'dev')
    },
    cmdclass={'build_py': BuildWithMim},
    zip_safe=False,
    classifiers=[
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
)
