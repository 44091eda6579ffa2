"""Small mistakes put into a solution by machine, one in each copy: what a checker must notice."""

import ast
import copy
from collections.abc import Iterator

_COMPARISONS = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq, ast.Gt),
}
_METHODS = {"max": "min", "min": "max", "argmax": "argmin"}


def _replacements(node: ast.AST) -> Iterator[ast.AST]:
    """What can stand in a node's place: another comparison, constant or axis, one part of a sum or
    product, swapped operands or arguments, the opposite of a method."""
    if isinstance(node, ast.Compare):
        for other in _COMPARISONS.get(type(node.ops[0]), ()):
            yield ast.Compare(node.left, [other()], node.comparators)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        for other in (node.value + 1, node.value - 1):
            yield ast.Constant(other)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield ast.Constant(node.value + "x")
    elif isinstance(node, ast.BinOp):
        yield from (node.left, node.right)
        if isinstance(node.op, (ast.MatMult, ast.Sub, ast.Div, ast.FloorDiv)):
            yield ast.BinOp(node.right, node.op, node.left)
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant):
        yield node.operand
    elif isinstance(node, ast.Call):
        for at in range(len(node.args) - 1):
            pair = node.args[at : at + 2]
            if not any(isinstance(argument, ast.Constant) for argument in pair):
                args = [*node.args[:at], *pair[::-1], *node.args[at + 2 :]]
                yield ast.Call(node.func, args, node.keywords)
        for keyword in node.keywords:
            yield ast.Call(node.func, node.args, [k for k in node.keywords if k is not keyword])
    elif isinstance(node, ast.Attribute) and node.attr in _METHODS:
        yield ast.Attribute(node.value, _METHODS[node.attr], node.ctx)
    elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
        yield ast.Return(ast.Tuple(node.value.elts[::-1], ast.Load()))


def mutants(code: str) -> Iterator[tuple[str, str]]:
    """(what was changed, the changed code), each once."""
    tree = ast.parse(code)
    places = list(ast.walk(tree))
    seen = {ast.unparse(tree)}
    for at, place in enumerate(places):
        for k, replacement in enumerate(_replacements(place)):
            changed = copy.deepcopy(tree)
            node = list(ast.walk(changed))[at]
            new = list(_replacements(node))[k]
            mutant = ast.unparse(_Swap(node, new).visit(changed))
            if mutant not in seen:
                seen.add(mutant)
                yield f"{ast.unparse(place)} -> {ast.unparse(replacement)}", mutant


class _Swap(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST):
        self.old, self.new = old, new

    def visit(self, node):
        return self.new if node is self.old else self.generic_visit(node)
