"""A file backend of the tests: files in memory, under names with the prefix ``mem://``."""

from __future__ import annotations

from pathlib import Path

from mmengine.fileio import BaseStorageBackend, register_backend

PREFIX = 'mem://'


@register_backend('memory', prefixes='mem', force=True)
class MemoryBackend(BaseStorageBackend):
    """Files of a dict, which all its instances share; it can list folders and tell what exists."""

    files: dict[str, bytes] = {}

    def get(self, filepath):
        if str(filepath) not in self.files:
            raise FileNotFoundError(filepath)
        return self.files[str(filepath)]

    def get_text(self, filepath, encoding='utf-8'):
        return self.get(filepath).decode(encoding)

    def exists(self, filepath):
        return str(filepath) in self.files

    def join_path(self, filepath, *filepaths):
        root = str(filepath)
        return '/'.join(((root if root.endswith('//') else f'{root}/')[:-1], *map(str, filepaths)))

    def list_dir_or_file(
        self, dir_path, list_dir=True, list_file=True, suffix=None, recursive=False
    ):
        folder = f'{str(dir_path).rstrip("/")}/'
        for name in self.files:
            if name.startswith(folder) and (suffix is None or name.endswith(suffix)):
                yield name.removeprefix(folder)


@register_backend('blind', force=True)
class BlindBackend(BaseStorageBackend):
    """As LMDB, it gives what is asked for by its key, None for an unknown one, and can do nothing else."""

    files: dict[str, bytes] = {}

    def get(self, filepath):
        return self.files.get(str(filepath))

    def get_text(self, filepath, encoding='utf-8'):
        raise NotImplementedError


def store(folder: Path, kind: type = MemoryBackend, prefix: str = PREFIX) -> None:
    """Put all files below a folder into a backend, under their relative paths."""
    kind.files.clear()
    for path in sorted(folder.rglob('*')):
        if path.is_file():
            kind.files[prefix + path.relative_to(folder).as_posix()] = path.read_bytes()
