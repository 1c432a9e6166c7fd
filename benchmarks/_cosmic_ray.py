"""The mutants that Cosmic Ray makes of a Python file, by its operators, for tests run by ours.

Its own way of running them, a new process of Python for each, would take JAX's import and the
compiling of every program thousands of times.
"""

import ast
from collections.abc import Iterator

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

from benchmarks._mutants import SKIPPED_FIELDS, Mutant

Place = tuple[int, int]  # line and column


def mutants(source: str) -> Iterator[Mutant]:
    """All mutants of a file that are Python, but those of annotations, which run on import.

    In place of the code in question stand the whole lines, before and after.
    """
    nodes = list(ast_nodes(get_ast(source)))
    tree = list(ast.walk(ast.parse(source)))
    statements = [(_span(x), x.lineno) for x in tree if isinstance(x, ast.stmt)]
    annotations = [span for node in tree for span in _annotations(node)]
    for name in operator_names():
        kind = get_operator(name)
        if kind.arguments():  # names of variables, which it would have to be told
            continue
        operator = kind()
        places = (place for node in nodes for place in operator.mutation_positions(node))
        for i, (start, end) in enumerate(places):
            if any(_holds(span, start) for span in annotations):
                continue
            mutated = mutate_code(source, kind(), i)
            if mutated is None or not _is_python(mutated):
                continue
            lines = zip(source.splitlines(), mutated.splitlines(), strict=False)
            before, after = next((a.strip(), b.strip()) for a, b in lines if a != b)
            innermost = max((n for span, n in statements if _holds(span, start)), default=start[0])
            yield Mutant(innermost, end[0], before, after, mutated)


def _annotations(node: ast.AST) -> Iterator[tuple[Place, Place]]:
    """Where annotations and the like, which are fields of the node, begin and end."""
    for field in SKIPPED_FIELDS:
        value = getattr(node, field, None)
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.expr):
                yield _span(each)


def _holds(span: tuple[Place, Place], place: Place) -> bool:
    return span[0] <= place < span[1]


def _span(node: ast.expr | ast.stmt) -> tuple[Place, Place]:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)


def _is_python(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True
