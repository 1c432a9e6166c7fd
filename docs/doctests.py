"""An extension of griffe: the examples of docstrings are code, where Markdown sees quotations."""

import re
from typing import Any

import griffe

# From the prompt to the next blank line, with what each statement prints.
_EXAMPLES = re.compile(r"^>>> .+(?:\n.+)*", re.MULTILINE)


class Doctests(griffe.Extension):
    """Puts a fence around each block of examples."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring of a module, class, function or attribute."""
        del kwargs
        if obj.docstring:
            fenced = _EXAMPLES.sub(lambda m: f"```pycon\n{m[0]}\n```", obj.docstring.value)
            obj.docstring.value = fenced
