"""The project's Markdown: its pages, the commands in them, its links and headings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Languages of blocks that a person types; in the others nothing is a command.
_TYPED = ("sh", "bash", "console")
_FENCE = re.compile(r"^\s*```(\w*)\s*$")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$")
_ENDS = {"|", "||", "&&", ";"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block with its language; `line` is that of its first line."""

    page: str
    line: int
    language: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One program with its arguments, `sudo`, variables and redirections left out."""

    page: str
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {shlex.join(self.words)}"

    @property
    def text(self) -> str:
        return " ".join(self.words)


@cache
def pages() -> tuple[Path, ...]:
    """All Markdown that is shipped."""
    return tuple(sorted((*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))))


@cache
def blocks() -> tuple[Block, ...]:
    return tuple(block for page in pages() for block in _blocks(page))


@cache
def commands() -> tuple[Command, ...]:
    """Every command that any page tells to type."""
    return tuple(
        command
        for block in blocks()
        if block.language in _TYPED
        for number, line in _typed(block)
        for command in parse(line, page=block.page, line=number)
    )


def parse(text: str, *, page: str = "", line: int = 0) -> Iterator[Command]:
    """Split a line as a shell does, as far as the docs use one."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    skipped = False
    for word in (*lexer, ";"):
        if word in _ENDS:
            if program := _program(words):
                yield Command(page=page, line=line, words=tuple(program))
            words = []
        elif set(word) <= set("<>&"):
            skipped = True
        elif skipped:
            skipped = False
        else:
            words.append(word)


def links(page: Path) -> Iterator[str]:
    """The targets of a page's links, those in blocks left out."""
    inside = False
    for line in page.read_text().splitlines():
        if _FENCE.match(line):
            inside = not inside
        elif not inside:
            yield from _LINK.findall(re.sub(r"`[^`]*`", "", line))


@cache
def anchors(page: Path) -> frozenset[str]:
    """What links to parts of a page may name: GitHub's slugs of headings, and `<a id>`."""
    found: list[str] = []
    inside = False
    for line in page.read_text().splitlines():
        if _FENCE.match(line):
            inside = not inside
        elif not inside:
            if heading := _HEADING.match(line):
                slug = _slug(heading[1])
                repeated = found.count(slug)
                found.append(f"{slug}-{repeated}" if repeated else slug)
            found += re.findall(r'<a (?:id|name)="([^"]+)"', line)
    return frozenset(found)


def _slug(heading: str) -> str:
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def _blocks(page: Path) -> Iterator[Block]:
    name = str(page.relative_to(ROOT))
    language, first, kept = "", 0, list[str]()
    inside = False
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        fence = _FENCE.match(line)
        if fence and not inside:
            inside, language, first, kept = True, fence[1], number + 1, []
        elif fence:
            inside = False
            yield Block(page=name, line=first, language=language, lines=tuple(kept))
        elif inside:
            kept.append(line)


def _typed(block: Block) -> Iterator[tuple[int, str]]:
    """Whole lines that are typed: after a `$` where output is shown as well, else all of them."""
    pending, start = "", 0
    for number, line in enumerate(block.lines, start=block.line):
        shown = line.strip()
        if not pending:
            if block.language == "console":
                if not shown.startswith("$ "):
                    continue
                shown = shown[2:]
            start = number
        if shown.endswith("\\"):
            pending += shown[:-1] + " "
            continue
        whole, pending = pending + shown, ""
        if whole and not whole.startswith("#"):
            yield start, whole


def _program(words: list[str]) -> list[str]:
    rest = list(words)
    while rest and (rest[0] == "sudo" or re.fullmatch(r"[A-Z_]+=\S*", rest[0])):
        rest = rest[1:]
    return rest
