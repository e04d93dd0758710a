"""Images opened whatever their size."""

import io
import struct
import subprocess
import sys
import zlib

import pytest
from PIL import Image

from mmseg_semi.datasets import files
from mmseg_semi.datasets.files import MAX_PIXELS, copies_of, open_image
from mmseg_semi.datasets.labels import read_values
from mmseg_semi.datasets.transforms import CheckImageFile


def png_header(width, height, color=2):
    """What Pillow reads of a PNG when it opens it, and its end; there are no pixels."""

    def chunk(name, data):
        return (
            struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))
        )

    header = struct.pack('>IIBBBBB', width, height, 8, color, 0, 0, 0)
    chunks = (chunk(b'IHDR', header), chunk(b'IDAT', b''), chunk(b'IEND', b''))
    return b'\x89PNG\r\n\x1a\n' + b''.join(chunks)


def test_very_large_images_are_opened(tmp_path):
    path = tmp_path / 'tile.png'
    path.write_bytes(png_header(13500, 14000))  # Pillow's own limit is 179 million pixels
    with open_image(path) as image:
        assert image.size == (13500, 14000)
    CheckImageFile().transform({'img_path': str(path)})


@pytest.mark.slow
def test_the_limit_is_raised_by_importing_the_package():
    """And not by the first file that is opened: mmcv opens masks by Pillow itself."""
    code = 'import mmseg_semi.datasets; from PIL import Image; print(Image.MAX_IMAGE_PIXELS)'
    printed = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert printed.stdout.split()[-1] == str(MAX_PIXELS)


@pytest.mark.parametrize('pillow', [True, False])
def test_what_opencv_would_not_decode_is_refused(tmp_path, monkeypatch, pillow):
    path = tmp_path / 'a.png'
    Image.new('L', (30, 20)).save(path)
    limit = 599 if not pillow else 10**6
    monkeypatch.setattr(files, 'MAX_PIXELS', limit)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 200 if pillow else None)
    with pytest.raises(OSError, match=r'600 pixels|30x20 is more than the 599 pixels'):
        open_image(path)
    for read in (read_values, lambda p: CheckImageFile(rgb=False).transform({'img_path': p})):
        with pytest.raises(ValueError, match=r'a.png cannot be read as an image \(.*into tiles\)'):
            read(str(path))


def test_smaller_images_are_opened_from_paths_and_files(tmp_path):
    path = tmp_path / 'a.png'
    Image.new('L', (30, 20), 7).save(path)
    for source in (path, io.BytesIO(path.read_bytes())):
        with open_image(source) as image:
            assert image.size == (30, 20)
            assert image.getpixel((3, 4)) == 7


def test_copies_have_the_same_name_and_content(tmp_path):
    contents = {
        'train/a.png': b'one',
        'train/b.png': b'two',
        'train/c.png': b'six',
        'train/d.png': b'four',
        'val/a.png': b'one',
        'val/x/b.png': b'too',
        'val/y/b.png': b'two',
        'val/e.png': b'six',
        'val/d.png': b'for',
    }
    for name, content in contents.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    paths = {
        part: [str(tmp_path / name) for name in contents if name.startswith(part)]
        for part in ('train', 'val')
    }
    # c has another name, d another size, and a remote file is not opened.
    found = copies_of([*paths['train'], 's3://f.png'], [*paths['val'], 's3://f.png'])
    assert sorted(found) == [str(tmp_path / f'train/{name}.png') for name in 'ab']
