"""What the tests of the dataset converters share: a converter as a function, and its sentence of error."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).resolve().parents[1] / 'tools' / 'dataset_converters'


class Converter:
    """A converter's module; calling it runs the command in this process."""

    def __init__(self, name):
        spec = importlib.util.spec_from_file_location(f'{name}_converter', FOLDER / f'{name}.py')
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)

    def __call__(self, *arguments):
        self.module.main([str(argument) for argument in arguments])

    def error(self, *arguments):
        """The sentence with which the command ends."""
        with pytest.raises(SystemExit) as caught:
            self(*arguments)
        sentence = str(caught.value)
        assert '\n' not in sentence
        assert 'Traceback' not in sentence
        return sentence


def save(path, array, mode=None):
    """Write an image, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(array))
    if mode == 'P':
        image.putpalette(list(range(256)) * 3)
    image.save(path)
    return path


def read(path):
    """The values of an image."""
    with Image.open(path) as image:
        return np.array(image)


def snapshot(folder):
    """Every file below a folder with its bytes."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob('*') if p.is_file()}
