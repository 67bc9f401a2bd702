"""Docstrings are written to be read in an editor and by ``help``; here they become Markdown for the site."""

from __future__ import annotations

import re
from textwrap import dedent
from typing import Any

import griffe

MATH = re.compile(r"^( *)\.\. math::(.*(?:\n(?:\1 +.*| *))*)", re.MULTILINE)
ROLE = re.compile(r":(class|meth|func|mod|math):`~?([^`]+)`")
REMARK = re.compile(r"^(Reads|Costs|Watch|Departs) {2,}", re.MULTILINE)
ARGUMENT = re.compile(r"^ +(\w+):.*# shapes?: (.+)$", re.MULTILINE)
RESULT = re.compile(r"\) -> [^#]+:  # shapes?: (.+)$", re.MULTILINE)
ORIGIN = re.compile(r"^(Source|Reference): ", re.MULTILINE)


class Docstrings(griffe.Extension):
    """``.. math::`` to formulas, roles to links, remarks (Reads, Costs, Watch, Departs) to paragraphs."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value, obj)
            if obj.is_function and (told := shapes(obj)):
                obj.docstring.value += f"\n\n**Shapes** {told}"


def shapes(function: griffe.Object) -> str:
    """The comments on shapes beside the arguments and the result, which a rendered signature does not show."""
    head = re.split(r"^ {4,}(?:r?\"\"\"|\w+ =)", function.source, maxsplit=1, flags=re.MULTILINE)[0]
    told = [f"`{name}`: {shape}" for name, shape in ARGUMENT.findall(head)]
    told += [f"result: {shape}" for shape in RESULT.findall(head)]
    return "; ".join(told)


def as_markdown(text: str, obj: griffe.Object) -> str:
    """The same text, in Markdown."""
    text = MATH.sub(lambda found: f"\n{found[1]}$$\n{_indented(found[2], found[1])}\n{found[1]}$$\n\n", text)
    text = ROLE.sub(lambda found: _role(found[1], found[2], obj), text)
    text = re.sub(r" +# doctest: \+SKIP", "", text).replace("\nExample:\n", "\nExamples:\n")
    return ORIGIN.sub(r"**\1**: ", REMARK.sub(r"\n**\1** ", text))


def _indented(formula: str, indent: str) -> str:
    return "\n".join(indent + line for line in dedent(formula).strip().splitlines() if line.strip())


def _role(kind: str, name: str, obj: griffe.Object) -> str:
    if kind == "math":
        return f"${name}$"
    return f"[`{name.rpartition('.')[2] if kind != 'meth' else name}`][{_path(name, obj)}]"


def _path(name: str, obj: griffe.Object) -> str:
    """Where a name leads: a full path, a member of this class, a name of this module, or one of the package's own."""
    first, package = name.partition(".")[0], obj.package.path
    if first == package:
        return name
    cls = obj if obj.is_class else obj.parent
    if cls is not None and cls.is_class and first in cls.members:
        return f"{cls.path}.{name}"
    known = obj.module.members.get(first)
    if known is None or known.is_alias:
        return f"{package}.{name}"
    return f"{known.path}{name.removeprefix(first)}"
