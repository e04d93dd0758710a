"""Hooks of MkDocs: what the site takes from the code, so that no text stands twice.

The tables of settings, the pages of the tools and the start page come from the declarations of the methods, the
tools' parsers and README.md. All are read as text: the build imports neither torch nor this package.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = re.compile(r'<!-- settings: (\w+) -->.*?<!-- end of settings -->', re.DOTALL)
TOOLS = '<!-- tools -->'
#: Code, which is left alone, or a link.
CODE_OR_LINK = re.compile(
    r'^```.*?^```|\[(?P<text>[^\[\]]*)\]\((?P<target>[^)\s]+)\)|`[^`\n]*`', re.M | re.S
)
#: A cross-reference as the docstrings write it, such as :class:`~mmseg_semi.models.CPS`, once rendered.
ROLE = re.compile(r':\w+:<code>~?(?:[\w.]*\.)?(\w+)</code>')


# ---------------------------------------------------------------- events of MkDocs
def on_files(files, config):
    """Make README.md the start page."""
    from mkdocs.structure.files import File

    files.append(
        File.generated(config, 'index.md', content=(ROOT / 'README.md').read_text('utf-8'))
    )
    return files


def on_page_markdown(markdown, page, config, files):
    """Fill in what comes from the code, and point links at the site or at the repository."""
    markdown = SETTINGS.sub(lambda found: settings_table(found[1]), markdown)
    markdown = markdown.replace(TOOLS, tools_text()) if TOOLS in markdown else markdown
    source = ROOT / (
        'README.md' if page.file.src_uri == 'index.md' else f'docs/{page.file.src_uri}'
    )
    return site_links(markdown, source, config.repo_url)


def on_page_content(html, page, config, files):
    """Show cross-references of docstrings as names."""
    return ROLE.sub(r'<code>\1</code>', html)


# ---------------------------------------------------------------- links
def site_links(markdown: str, source: Path, repo_url: str | None) -> str:
    """Rewrite the relative links of a page that lead out of docs, or into it from the README.

    Args:
        markdown (str): Text of the page.
        source (Path): Its file in the repository.
        repo_url (str, optional): Address of the repository. Without one, files outside docs are named and not
            linked.
    """
    docs = ROOT / 'docs'

    def rewrite(found):
        text, target = found['text'], found['target']
        if not target or '://' in target or target.startswith('#'):
            return found[0]
        file, hash_sign, anchor = target.partition('#')
        path = (source.parent / file).resolve()
        if path == ROOT / 'README.md':
            path = docs / 'index.md'
        if path.is_relative_to(docs):
            base = source.parent if source.is_relative_to(docs) else docs
            up = '../' * len(base.relative_to(docs).parts)
            return f'[{text}]({up}{path.relative_to(docs).as_posix()}{hash_sign}{anchor})'
        if not repo_url:
            return text
        kind = 'tree' if path.is_dir() else 'blob'
        address = f'{repo_url.rstrip("/")}/{kind}/main/{path.relative_to(ROOT).as_posix()}'
        return f'[{text}]({address}{hash_sign}{anchor})'

    return CODE_OR_LINK.sub(rewrite, markdown)


# ---------------------------------------------------------------- settings
class Declarations:
    """The settings classes of the methods, made from the source files without their imports."""

    def __init__(self) -> None:
        self.nodes: dict[str, ast.ClassDef] = {}
        self.constants: dict[str, Any] = {}
        for file in sorted((ROOT / 'mmseg_semi').rglob('*.py')):
            tree = ast.parse(file.read_text('utf-8'))
            self.constants.update(constants_of(tree))
            self.nodes.update(
                {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
            )
        self.module = _settings_module()
        self.built: dict[str, type] = {'MethodSettings': self.module.MethodSettings}

    def of_method(self, name: str) -> type | None:
        """`Settings` of a method or a part of one; an inherited one where it has none of its own."""
        node = self.nodes.get(name)
        if node is None:
            return None
        for one in node.body:
            if isinstance(one, ast.ClassDef) and one.name == 'Settings':
                return self._build(f'{name}.Settings', one)
        inherited = (self.of_method(ast.unparse(base)) for base in node.bases)
        return next(filter(None, inherited), None)

    def _class(self, name: str) -> type:
        """A class of settings by the name that a base or an annotation has for it."""
        method, _, nested = name.partition('.')
        return self.of_method(method) if nested else self._build(name, self.nodes[name])

    def _build(self, name: str, node: ast.ClassDef) -> type:
        if name not in self.built:
            bases = tuple(self._class(ast.unparse(base)) for base in node.bases)
            body = [one for one in node.body if isinstance(one, (ast.AnnAssign, ast.Assign))]
            module = ast.Module(body, [])
            names = {one.id for one in ast.walk(module) if isinstance(one, ast.Name)}
            known = {**vars(typing), **self.constants, 'setting': self.module.setting}
            known |= {one: self._class(one) for one in names if one.endswith('Settings')}
            space: dict[str, Any] = {}
            # Without this file's `from __future__ import annotations`: types are needed as objects.
            exec(compile(module, name, 'exec', dont_inherit=True), known, space)
            self.built[name] = types.new_class(name, bases, {}, lambda body: body.update(space))
        return self.built[name]


def settings_table(method: str) -> str:
    """The Markdown table of a method's settings, as `tools/settings.py` prints it.

    Raises:
        ValueError: There is no such method.
    """
    settings = _declarations().of_method(method)
    if settings is None:
        raise ValueError(f'<!-- settings: {method} -->: mmseg_semi has no method {method}.')
    return settings.table()


def _declarations() -> Declarations:
    if not hasattr(_declarations, 'made'):
        _declarations.made = Declarations()
    return _declarations.made


def _settings_module() -> types.ModuleType:
    """mmseg_semi/models/settings.py by itself; of mmseg it needs the name of a registry alone."""
    spec = importlib.util.spec_from_file_location(
        'site_settings', ROOT / 'mmseg_semi' / 'models' / 'settings.py'
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where the annotations of its classes are looked up
    with mock.patch.dict(sys.modules, {'mmseg': mock.Mock(), 'mmseg.registry': mock.Mock()}):
        spec.loader.exec_module(module)
    return module


def constants_of(tree: ast.Module) -> dict[str, Any]:
    """The literals that a file names at its top; of a dict of other values, the keys."""
    found = {}
    for node in tree.body:
        if not (isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None):
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        value = node.value
        if isinstance(value, ast.Dict) and all(isinstance(key, ast.Constant) for key in value.keys):
            value = ast.Dict(value.keys, [ast.Constant(None)] * len(value.keys))
        try:
            found[ast.unparse(target)] = ast.literal_eval(value)
        except ValueError:
            continue
    return found


# ---------------------------------------------------------------- tools
def tools_text() -> str:
    """A section for each Python tool: its docstring and a table of its arguments."""
    shared: dict[str, list[ast.Call]] = {}
    for file in ('cli.py', 'datasets/preparation.py'):
        for node in ast.parse((ROOT / 'mmseg_semi' / file).read_text('utf-8')).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith('add_'):
                shared[node.name] = _calls(node)
    folders = ('tools', 'tools/dataset_converters', 'tools/model_converters')
    files = [file for folder in folders for file in sorted((ROOT / folder).glob('[!_]*.py'))]
    return '\n\n'.join(_tool_section(file, shared) for file in files)


def _tool_section(file: Path, shared: dict[str, list[ast.Call]]) -> str:
    tree = ast.parse(file.read_text('utf-8'))
    first, _, rest = ast.get_docstring(tree).partition('\n\n')
    parts = [f'## {file.relative_to(ROOT).as_posix()}', first.replace('\n', ' ')]
    if rest:
        parts.append(f'```text\n{rest}\n```')
    constants = {**_declarations().constants, **constants_of(tree)}
    rows: list[str] = []
    for call, known in _arguments(_calls(tree), shared, constants):
        if call.func.attr == 'add_parser':
            heading = f'### {file.name} {_text(call.args[0], known)}'
            parts += [_table(rows), heading, _help(call, known, 'description')]
            rows = []
        else:
            rows.append(_row(call, known))
    return '\n\n'.join(filter(None, [*parts, _table(rows)]))


def _calls(tree: ast.AST) -> list[ast.Call]:
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return sorted(found, key=lambda call: (call.lineno, call.col_offset))


def _arguments(
    calls: list[ast.Call], shared: dict[str, list[ast.Call]], known: dict
) -> Iterator[tuple[ast.Call, dict]]:
    """Calls that add arguments, with the names known there; calls of shared functions give theirs."""
    for call in calls:
        name = getattr(call.func, 'attr', getattr(call.func, 'id', ''))
        if name in ('add_argument', 'add_parser'):
            yield call, known
        elif name in shared:
            given = {word.arg: _text(word.value, known) for word in call.keywords}
            yield from _arguments(shared[name], shared, {**known, **given})


def _row(call: ast.Call, known: dict) -> str:
    """A row of the table; empty for an argument that `--help` does not explain, either."""
    given = {word.arg: word.value for word in call.keywords}
    names = ', '.join(f'`{_text(name, known)}`' for name in call.args)
    choices = (_text(given['choices'], known) if 'choices' in given else None) or ()
    listed = ', '.join(f'`{one}`' for one in choices)
    meaning = '; '.join(filter(None, [_help(call, known, 'help'), listed and f'one of {listed}']))
    return f'| {names} | {meaning} |' if meaning else ''


def _help(call: ast.Call, known: dict, key: str) -> str:
    given = {word.arg: word.value for word in call.keywords}
    text = _text(given[key], known) if key in given else ''
    if not isinstance(text, str) or text == '==SUPPRESS==':
        return ''
    default = _text(given['default'], known) if 'default' in given else None
    text = text.replace('%(default)s', str(default)).replace('%%', '%')
    return text.replace('<', '&lt;').replace('|', '\\|')


def _text(node: ast.AST, known: dict) -> Any:
    """The value of an expression over literals and known names; None where it has another name."""
    names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    if not names <= {*known, *dir(builtins)}:
        return None
    return eval(compile(ast.Expression(node), '<help>', 'eval'), dict(known))


def _table(rows: list[str]) -> str:
    rows = list(filter(None, rows))
    return '\n'.join(['| Argument | Meaning |', '|---|---|', *rows]) if rows else ''
