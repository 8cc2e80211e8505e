"""Trees of pages for trafilatura, in which all that is text stands where it looks for text.

Given a page as it is, it leaves out without a word what is nested deeper than 255 elements, all that follows an
element, attribute or comment of more than 10 MB, the joiners of Persian, Hindi and emoji, formulas, lists in the cells
of tables, the numbers of lists, and of pages that name no main part all that is no paragraph.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from html import unescape
from typing import Any

_INVALID = bytes(code for code in range(32) if code not in b"\t\n\r")
_NO_CHARACTERS = "\ufffe".encode(), "\uffff".encode()
_UNPRINTED = "\u200c\u200d\u06dd\u0600\u0601\u0602\u0603\u0604\u0605\u070f\u0890\u0891\u08e2\u180e"
"""Characters that are not printed by themselves, but change what is: joiners, signs of Arabic numbers and verses."""
_ENTITY = re.compile("&(?:zwn?j|#(?:" + "|".join(f"0*{ord(character)}|[xX]0*(?i:{ord(character):x})"
                                                 for character in (*_UNPRINTED, "\u200b")) + ")(?![0-9a-fA-F]));?")
_TAGS = [chr(code) for code in range(0xE0020, 0xE0080)]
"""Those of flags; the last of them ends every row."""
_BORDER = re.compile("(?<=[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff])\u200b")
"""A border of words in scripts without spaces."""
_LOOSE = re.compile("(?<!\\S)[\u200c\u200d]+")
_LETTERS = [chr(code) for code in (*range(0x16A0, 0x16EB), *range(0x1681, 0x169B), *range(0x10600, 0x10737))]
"""What stands for them meanwhile, as far as a page does not hold it itself: runes, Ogham, Linear A."""
_INLINE = frozenset({
    "a", "abbr", "b", "bdi", "bdo", "big", "cite", "code", "del", "em", "font", "i", "ins", "kbd", "label", "mark",
    "nobr", "q", "rb", "ruby", "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "tt", "u", "var", "wbr"
})
_NO_TEXT = frozenset({"script", "style", "noscript", "template", "iframe", "object", "select", "svg"})


class StandIns:
    """Letters that a page does not hold, for what trafilatura would drop from it."""

    def __init__(self, html: str) -> None:
        self._free = (letter for letter in _LETTERS if letter not in html)
        self._characters: dict[int, str] = {}
        self.number = ""
        """The letter before the number of an item, of pages with numbered lists."""

    def keep(self, html: str) -> str:
        """The page with letters for its characters that are not printed."""
        html = _ENTITY.sub(lambda entity: unescape(entity[0].rstrip(";") + ";"), html)
        if html.isascii():
            return html
        for character in (*_UNPRINTED, *(_TAGS if _TAGS[-1] in html else ())):
            if character in html and (letter := self.next()):
                html = html.replace(character, letter)
                self._characters[ord(letter)] = character
        if "\u200b" in html and _BORDER.search(html) and (letter := self.next()):
            html = _BORDER.sub(letter, html)
            self._characters[ord(letter)] = "\u200b"
        return html

    def next(self) -> str:
        """One more letter, for a mark; none where the page holds them all."""
        return next(self._free, "")

    def restore(self, text: str) -> str:
        """The text with the characters again, and with numbers in the place of an item's dash."""
        if self.number:
            text = re.sub(f"^( *)- {self.number}", r"\1", text, flags=re.MULTILINE).replace(self.number, "")
        return _LOOSE.sub("", text.translate(self._characters)) if self._characters else text


DEEPEST = 2000
"""The parser stops without a word at the first element that is a little deeper than this."""


class TooDeep(Exception):
    """A page that is nested deeper than the parser goes."""


def tree_of(html: str, depth: int, stand_ins: StandIns) -> Any:
    """The tree of a page for trafilatura, at most ``depth`` deep; None where there is none. Raises
    :class:`TooDeep`."""
    from lxml.etree import LxmlError, strip_tags
    from lxml.html import fromstring

    data = html.encode("utf-8", "replace").translate(None, _INVALID)
    if not html.isascii():
        for character in _NO_CHARACTERS:
            data = data.replace(character, b"")
    try:
        root = fromstring(data, parser=_parser())
    except (LxmlError, ValueError, AssertionError):
        return None
    deep: list[Any] = []
    if (is_deep := bool(_at(depth + 1)(root))) and _at(DEEPEST)(root):
        raise TooDeep
    found = _by_tag(root)
    _write_formulas(found)
    if is_deep and _at(depth + 1)(root):
        strip_tags(root, *_INLINE)
        deep = [element for element in _at(depth)(root) if len(element)]
    for element in deep:
        _lay_flat(element)
    if deep:  # beside paragraphs, text right under a <div> would not be taken for one
        for element in [element for element in root.iter("div") if (element.text or "").strip()]:
            paragraph = element.makeelement("p")
            paragraph.text, element.text = element.text, None
            element.insert(0, paragraph)
        found = _by_tag(root)
    for element in (*found["center"], *found["address"], *found["marquee"]):
        element.tag = "div"
    for cell in (*found["td"], *found["th"]):
        for element in cell.iter("ul", "ol", "dl", "li", "dt", "dd"):
            element.tag = "p" if element.tag in ("li", "dt", "dd") else "div"
    _number_items([element for element in found["ol"] if element.tag == "ol"], stand_ins)
    if not found["main"] and not found["article"]:
        _name_main_part(root)
    root.ours = True
    return root


def _by_tag(root: Any) -> dict[str, list[Any]]:
    """The elements that are looked at, found in one go, as every look at a whole tree takes its time."""
    found = defaultdict[str, list[Any]](list)
    for element in root.iter("math", "script", "img", "center", "address", "marquee", "td", "th", "ol", "main",
                             "article"):
        found[element.tag].append(element)
    return found


@lru_cache(maxsize=1)
def _parser() -> Any:
    from lxml.html import HtmlElement, HtmlElementClassLookup, HTMLParser

    class Root(HtmlElement):  # type: ignore[misc]
        """The root of a tree. trafilatura copies a tree that it is given, to leave it as it is, and nobody needs that:
        the first copy is the tree itself."""

        ours = False

        def __copy__(self) -> Any:
            if self.ours:
                self.ours = False
                return self
            return super().__copy__()

    parser = HTMLParser(collect_ids=False, default_doctype=False, encoding="utf-8", remove_comments=True,
                        remove_pis=True, huge_tree=True)
    parser.set_element_class_lookup(HtmlElementClassLookup({"html": Root}))
    return parser


@lru_cache(maxsize=8)
def _at(depth: int) -> Any:
    """The expression for all elements so deep in a tree."""
    from lxml.etree import XPath
    return XPath("/*" * depth)


def _lay_flat(element: Any) -> None:
    """Keep the text of an element's descendants, and which of it are paragraphs, without their nesting."""
    from lxml.etree import SubElement

    paragraphs: list[tuple[str, list[str]]] = []
    for tag, text in _pieces(element):
        if tag:
            paragraphs.append((tag, []))
        if text:
            if not paragraphs:
                paragraphs.append(("p", []))
            paragraphs[-1][1].append(text)
    del element[:]
    element.text = None
    for tag, texts in paragraphs:
        if "".join(texts).strip():
            SubElement(element, tag).text = "".join(texts)


def _pieces(element: Any) -> Iterator[tuple[str, str | None]]:
    """``(the tag of the paragraph that begins here or none, a piece of text)``, in order."""
    from lxml.etree import iterwalk

    walk = iterwalk(element, events=("start", "end"))
    for event, node in walk:
        block = node.tag not in _INLINE
        if event == "end":
            if node is not element:
                yield "p" if block else "", node.tail
        elif node.tag in _NO_TEXT:
            walk.skip_subtree()
        else:
            yield ("pre" if node.tag == "pre" else "p") if block else "", node.text


def _write_formulas(found: dict[str, list[Any]]) -> None:
    """Formulas as TeX where the page has it, else as the characters that they show."""
    for script in found["script"]:
        kind = script.get("type", "").lower().replace(" ", "")
        if kind.startswith("math/tex") and script.text:
            _say(script, script.text, "mode=display" in kind)
    formulas = found["math"]
    for formula in formulas:
        notes = [note.text for note in formula.iter("annotation") if "tex" in note.get("encoding", "").lower()]
        tex, shown = next(iter(notes), None) or formula.get("alttext"), "".join("".join(formula.itertext()).split())
        _say(formula, tex or shown, formula.get("display") == "block", bool(tex))
        for holder in formula.iterancestors("span"):
            holder.attrib.pop("style", None)  # shown to readers aloud only, beside a picture
            if (drawn := holder.find("span[@class='katex-html']")) is not None:
                holder.remove(drawn)
    pictures = [] if formulas else [picture for picture in found["img"] if picture.get("alt")]
    for picture in pictures:
        if re.search(r"\b(?:mwe-math|latex|math)", picture.get("class", "")):
            _say(picture, picture.get("alt"), False)


def _say(element: Any, formula: str, display: bool, tex: bool = True) -> None:
    """Make an element a piece of text that is a formula."""
    formula, tail = formula.strip(), element.tail
    element.clear()
    element.tag, element.tail = "span", tail
    element.text = formula if not tex else f"\\[{formula}\\]" if display else f"\\({formula}\\)"


def _number_items(lists: list[Any], stand_ins: StandIns) -> None:
    """Write the numbers of numbered lists before their items."""
    for numbered in lists:
        stand_ins.number = stand_ins.number or stand_ins.next()
        items = [item for item in numbered if item.tag == "li"]
        step = -1 if numbered.get("reversed") is not None else 1
        number = _whole(numbered.get("start"), len(items) if step < 0 else 1)
        for item in items:
            number = _whole(item.get("value"), number)
            holder = item
            while not (holder.text or "").strip() and len(holder) and holder[0].tag in ("p", "div", "span"):
                holder = holder[0]
            holder.text = f"{stand_ins.number}{number}. {(holder.text or '').lstrip()}"
            number += step


def _whole(value: str | None, otherwise: int) -> int:
    return int(value) if value and re.fullmatch(r"\s*-?[0-9]{1,9}\s*", value) else otherwise


def _name_main_part(root: Any) -> None:
    """Make the whole body the main part of a page in which trafilatura would find none: it then takes paragraphs
    alone, and leaves out lists, tables and what else stands between them."""
    from trafilatura.xpaths import BODY_XPATH

    body = root.find("body")
    if body is None or any(expression(root) for expression in BODY_XPATH):
        return
    main = body.makeelement("main")
    bare, body.text = body.text, None
    for child in (None, *body):
        if child is not None:
            main.append(child)
            bare, child.tail = child.tail, None
        if bare and bare.strip():  # text of no element is no paragraph to it
            main.append(body.makeelement("p"))
            main[-1].text = bare
    body.append(main)
