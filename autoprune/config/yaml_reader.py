"""YAML within bounds: texts, numbers, true, false, null, lists and mappings; what else YAML can say is an error.

The parser alone would take the last of two equal keys, turn dates into objects, and let aliases and nesting grow until
the memory or the stack is full. Numbers are those of YAML 1.2: 1e-4 is one, 010 is ten, 12:30 is a text. `yes`, `no`,
`on` and `off` are true and false, and texts as keys. Files that we have written ourselves are in YAML 1.1.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NoReturn, final

import yaml

from autoprune.config.bounded_files import MOST_BYTES, read_text, shown_path
from autoprune.errors import ConfigError, shortened

DEEPEST = 32
"""Lists and mappings inside each other."""

MOST_VALUES = 20_000
"""Keys, values and lists in one file, aliases counted as often as they are used."""

MOST_LETTERS = 500_000
"""Of all values together, counted likewise."""

LONGEST_TEXT, LONGEST_NUMBER = 10_000, 40

_YAML = "tag:yaml.org,2002:"
_KINDS = "texts, numbers, true, false, null, lists and mappings"
_NUMBERS = {"int": "a whole number", "float": "a number", "bool": "true or false"}
_KNOWN = (*_NUMBERS, "null", "str", "seq", "map", "merge")


def read_yaml(path: Path, *, most: int = MOST_BYTES, dumped: bool = False) -> Any:
    """What a YAML file holds.

    Args:
        path: of it.
        most: bytes.
        dumped: see `parse_yaml`.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or goes beyond the bounds; names the line.
    """
    return parse_yaml(read_text(path, most=most), shown_path(path), dumped=dumped)


def parse_yaml(text: str, what: str, *, most_values: int = MOST_VALUES, dumped: bool = False) -> Any:
    """What a YAML text holds.

    Args:
        text: of one document.
        what: names it in messages.
        most_values: keys, values and lists in all.
        dumped: we have written it, and a text that YAML 1.1 takes for one (1e5, 08) stands there without quotes.

    Raises:
        ConfigError: it is not YAML, or goes beyond the bounds; names the line and quotes none, as it may hold a secret.
    """
    try:
        return (_Loader if dumped else _PlainLoader)(text, most_values).get_single_data()
    except _BeyondError as error:
        raise ConfigError(f"{what}, {error}") from None
    except yaml.reader.ReaderError as error:
        line, code = text.count("\n", 0, error.position) + 1, ord(text[error.position])
        raise ConfigError(f"{what} is not valid YAML: line {line}: character #x{code:04x} is not allowed") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        told = " ".join(", ".join(part for part in (error.context, error.problem) if part).split())
        raise ConfigError(f"{what} is not valid YAML: {where}{shortened(told, 300)}") from None


class _BeyondError(Exception):
    """What YAML allows and these files do not."""


class _Loader(yaml.SafeLoader):
    """Composes and constructs as the safe loader does, within the bounds."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - a text that looks like a date is a text
        first: [(tag, pattern) for tag, pattern in rows if tag.removeprefix(_YAML) in _KNOWN]
        for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str, most_values: int) -> None:
        super().__init__(text)
        self._most_values, self._most_letters = most_values, MOST_LETTERS * most_values // MOST_VALUES
        self._depth = 0
        self._sizes: dict[yaml.Node, tuple[int, int, int] | None] = {}

    def get_single_node(self) -> yaml.Node | None:
        """The tree, counted before anything is made from it."""
        node = super().get_single_node()
        if node is not None:
            self._size(node)
        return node

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """One node and those below it."""
        self._depth += 1
        if self._depth > DEEPEST:
            _beyond(self.peek_event(), _TOO_DEEP)  # type: ignore[no-untyped-call]
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The value of a node."""
        kind = node.tag.removeprefix(_YAML)
        if kind not in _KNOWN:
            tag = node.tag.replace(_YAML, "!!")
            _beyond(node, f"the tag {shortened(tag, 80)} cannot be used; a file holds {_KINDS}")
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError):  # "0b_", or a text after !!int
            _beyond(node, f"this is not {_NUMBERS.get(kind, 'a value')}; put a text into quotes")
        if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" or letter == "\0" for letter in value):
            _beyond(node, "this text holds characters that no file or message can hold (null, or half of a pair)")
        return value

    def _size(self, node: yaml.Node) -> tuple[int, int, int]:
        """Values, letters and depth of a node, with all that its aliases stand for."""
        if node in self._sizes:
            known = self._sizes[node]
            if known is None:
                _beyond(node, "an alias stands inside of what it stands for, without end")
            return known
        self._sizes[node] = None
        values, letters, depth = 1, 0, 0
        if isinstance(node, yaml.ScalarNode):
            letters = len(node.value)
            number = node.tag in (f"{_YAML}int", f"{_YAML}float")
            most, kind = (LONGEST_NUMBER, "number") if number else (LONGEST_TEXT, "text")
            if letters > most:
                _beyond(node, f"a {kind} of {letters:,} characters; the longest one that is read has {most:,}")
        else:
            pairs = isinstance(node, yaml.MappingNode)
            if pairs:
                _check_keys([key for key, _ in node.value])
            below = [self._size(one) for entry in node.value for one in (entry if pairs else (entry,))]
            values, letters = 1 + sum(one[0] for one in below), sum(one[1] for one in below)
            depth = 1 + max((one[2] for one in below), default=0)
        if depth > DEEPEST:
            _beyond(node, _TOO_DEEP)
        if values > self._most_values or letters > self._most_letters:
            told = f"{self._most_values:,} values or {self._most_letters:,} characters"
            _beyond(node, f"more than {told}, aliases written out")
        self._sizes[node] = values, letters, depth
        return values, letters, depth


_BOOL = re.compile("true|false", re.IGNORECASE)
_INT = re.compile(r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)$")
_FLOAT = re.compile(
    r"(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_OF_NUMBERS = "-+.0123456789"
_NEW = {f"{_YAML}int": _INT, f"{_YAML}float": _FLOAT}


@final
class _PlainLoader(_Loader):
    """The same with the numbers of YAML 1.2, for what people have written."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as above
        **{
            first: [(tag, pattern) for tag, pattern in rows if tag not in _NEW]
            for first, rows in _Loader.yaml_implicit_resolvers.items()
        },
        **{first: list(_NEW.items()) for first in _OF_NUMBERS},
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping, whose keys are no truth values but for true and false."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        for key, _ in node.value:
            if key.tag == f"{_YAML}bool" and not _BOOL.fullmatch(key.value):
                key.tag = f"{_YAML}str"
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """A whole number, of base 10 also where it begins with zeros."""
        text = self.construct_scalar(node).replace("_", "")
        return int(text, 0 if text.lstrip("+-")[:2] in ("0b", "0o", "0x") else 10)


_PlainLoader.add_constructor(f"{_YAML}int", _PlainLoader.construct_yaml_int)


def dump_yaml(data: Any) -> str:
    """The text of plain values, which reads the same in YAML 1.1 and 1.2; keys in their order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False)


@final
class _Dumper(yaml.SafeDumper):
    """Puts what is a number in one of the two into quotes where it is a text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as above
        **yaml.SafeDumper.yaml_implicit_resolvers,
        **{first: [*yaml.SafeDumper.yaml_implicit_resolvers[first], *_NEW.items()] for first in _OF_NUMBERS},
    }


def _check_keys(keys: list[yaml.Node]) -> None:
    """Every key of a mapping is a plain value and stands once."""
    first: dict[tuple[str, str], int] = {}
    for key in keys:
        if not isinstance(key, yaml.ScalarNode):
            _beyond(key, "a list or mapping cannot be a key")
        line = key.start_mark.line + 1
        if (key.tag, key.value) in first:
            told, before = shortened(repr(key.value), 80), first[key.tag, key.value]
            _beyond(key, f"the key {told} stands twice, first in line {before}; leave one of them out")
        first[key.tag, key.value] = line


_TOO_DEEP = f"lists or mappings are more than {DEEPEST} deep inside each other"


def _beyond(node: Any, told: str) -> NoReturn:
    """Refuse a node, or what the parser met."""
    raise _BeyondError(f"line {node.start_mark.line + 1}: {told}")
