"""Reads {path: text} of Python sources; writes their imports of each other, and every word in them."""

import ast
import io
import json
import posixpath
import sys
import tokenize

# Packages that other folders import by name.
ROOTS = ["client/python/src"]
KINDS = {tokenize.COMMENT: "Comment", tokenize.STRING: "Text", tokenize.NAME: "Name"}
KINDS |= {getattr(tokenize, name): "Text" for name in ["FSTRING_MIDDLE"] if hasattr(tokenize, name)}


def runs(node):
    """All nodes below one that are executed; `if TYPE_CHECKING:` is not."""
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        children = node.orelse
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        yield child
        yield from runs(child)


def imports(path, tree):
    """Pairs of a folder and a dotted name, and the names taken from it."""
    folder = posixpath.dirname(path)
    start = folder
    while posixpath.join(start, "__init__.py") in texts:
        start = posixpath.dirname(start)
    for node in runs(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield [start, *ROOTS], alias.name, []
        elif isinstance(node, ast.ImportFrom):
            bases = [start, *ROOTS]
            if node.level:
                base = folder
                for _ in range(node.level - 1):
                    base = posixpath.dirname(base)
                bases = [base]
            yield bases, node.module or "", [alias.name for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "import_module", "__import__"):
            if node.args and isinstance(node.args[0], ast.Constant):
                yield [start, *ROOTS], str(node.args[0].value), []


def file_of(bases, dotted):
    """The file of a module."""
    for base in bases:
        stem = posixpath.join(base, *filter(None, dotted.split(".")))
        for candidate in (stem + ".py", posixpath.join(stem, "__init__.py")):
            if candidate in texts:
                return candidate
    return None


def edges(path, tree):
    """Each file that a file imports, with a name taken from it."""
    for bases, dotted, names in imports(path, tree):
        for name in names or [""]:
            module = file_of(bases, f"{dotted}.{name}".strip(".")) if name else None
            target = module or file_of(bases, dotted)
            if target and target != path:
                yield [path, target, name or dotted]


def fragments(text):
    """Comments, strings and names, with their lines."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in KINDS:
            for number, line in enumerate(token.string.split("\n")):
                yield {"line": token.start[0] + number, "kind": KINDS[token.type], "text": line.strip()}


texts = json.load(sys.stdin)
found = {"imports": [], "fragments": {}}
for path, text in texts.items():
    found["imports"] += edges(path, ast.parse(text, path))
    found["fragments"][path] = list(fragments(text))
json.dump(found, sys.stdout)
