"""Mutants of a Python file: the same program with one small mistake in it.

Operators: + for -, * for / and the like; < for <=, < for >=, == for !=, and for or; a sign, a `not`
or a `~` that is lost; a number one higher; True for False; a condition turned round, of `if`,
`while` and `where`; min for max and other calls by their opposite; abs, sqrt, sign and sort left
out; an argument that is left to its default; a check or a `raise` that is left out.

Left alone, as no test of values can or should notice: docstrings and all other text, annotations
and types, imports, decorators, assertions, what is raised, and `strict` of `zip`.
"""

import ast
from collections.abc import Iterator
from typing import Any, NamedTuple


class Mutant(NamedTuple):
    """A mutated file.

    Attributes:
        first: the line at which the statement begins that is mutated.
        last: the line at which the mutation ends.
        before: the code in question.
        after: what is in its place.
        source: the whole mutated file.
    """

    first: int
    last: int
    before: str
    after: str
    source: str


_SWAPS = (
    "Add Sub, Sub Add, Mult Div, Div Mult, FloorDiv Mult, Mod Mult, Pow Mult, BitAnd BitOr, "
    "BitOr BitAnd, BitXor BitAnd, LShift RShift, RShift LShift, And Or, Or And, Lt LtE GtE, "
    "LtE Lt Gt, Gt GtE LtE, GtE Gt Lt, Eq NotEq, NotEq Eq, Is IsNot, IsNot Is, In NotIn, NotIn In"
)
OPERATORS = {
    first: others
    for first, *others in ([getattr(ast, x) for x in s.split()] for s in _SWAPS.split(","))
}
_PAIRS = ("min max", "minimum maximum", "argmin argmax", "any all", "zeros ones", "floor ceil")
OPPOSITES = {a: b for pair in _PAIRS for a, b in (pair.split(), pair.split()[::-1])}
LEFT_OUT = ("abs", "sqrt", "sign", "sort")

_NO_DEFAULT = ("minimum", "strict")
_SKIPPED = (ast.Import, ast.ImportFrom, ast.Assert, ast.JoinedStr)
SKIPPED_FIELDS = ("annotation", "returns", "decorator_list", "exc", "type_comment")


def mutants(source: str) -> Iterator[Mutant]:
    """All mutants of a file, in the order of its lines."""
    tree = ast.parse(source)
    for holder, key, node, statement in _places(tree, 1):
        before = ast.unparse(node)
        for new in _variants(node):
            after = ast.unparse(new)
            holder[key] = ast.fix_missing_locations(new)
            last = getattr(node, "end_lineno", None) or statement
            yield Mutant(statement, last, before, after, ast.unparse(tree))
            holder[key] = node


def _places(parent: ast.AST, statement: int) -> Iterator[tuple[Any, Any, ast.AST, int]]:
    """Every node that may be mutated: what holds it and where, itself, its statement's line."""
    for field, value in ast.iter_fields(parent):
        if field in SKIPPED_FIELDS:
            continue
        holder, items = (
            (value, enumerate(value)) if isinstance(value, list) else (None, [(field, value)])
        )
        for key, node in items:
            if not isinstance(node, ast.AST) or _is_skipped(parent, node):
                continue
            line = node.lineno if isinstance(node, ast.stmt) else statement
            yield (vars(parent) if holder is None else holder), key, node, line
            yield from _places(node, line)


def _is_skipped(parent: ast.AST, node: ast.AST) -> bool:
    if isinstance(parent, ast.Module) and isinstance(node, ast.Assign):
        target = node.targets[0]
        return not (isinstance(target, ast.Name) and target.id.isupper())  # a type has a short name
    strict = isinstance(node, ast.keyword) and node.arg == "strict"
    return strict or isinstance(node, _SKIPPED)


def _variants(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the node's place."""
    match node:
        case ast.BinOp(op=op) | ast.AugAssign(op=op) | ast.BoolOp(op=op):
            for other in OPERATORS.get(type(op), ()):
                yield _with(node, op=other())
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                for other in OPERATORS[type(op)]:
                    yield _with(node, ops=[*ops[:i], other(), *ops[i + 1 :]])
        case ast.UnaryOp(operand=operand):
            yield operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant(value + 1)
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            # Of a comparison, or of what isn't, there is such a mutant already.
            if not isinstance(test, (ast.Compare, ast.UnaryOp)):
                yield _with(node, test=ast.UnaryOp(ast.Not(), test))
        case ast.Raise() | ast.Expr(value=ast.Call()):
            yield ast.Pass()
        case ast.Call():
            yield from _other_calls(node)


def _other_calls(call: ast.Call) -> Iterator[ast.AST]:
    name = call.func
    called = name.attr if isinstance(name, ast.Attribute) else getattr(name, "id", "")
    if called in OPPOSITES:
        field = {"attr" if isinstance(name, ast.Attribute) else "id": OPPOSITES[called]}
        yield _with(call, func=_with(name, **field))
    if called in LEFT_OUT and call.args:
        yield call.args[0]
    if called == "where" and not isinstance(call.args[0], ast.Compare):
        yield _with(call, args=[call.args[0], *call.args[:0:-1]])
    for i, keyword in enumerate(call.keywords):
        flag = isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, bool)
        if keyword.arg not in (None, *_NO_DEFAULT) and not flag:  # a flag is turned round anyway
            yield _with(call, keywords=call.keywords[:i] + call.keywords[i + 1 :])


def _with(node: Any, **fields: Any) -> Any:
    """The node with other fields."""
    return type(node)(**{**dict(ast.iter_fields(node)), **fields})
