"""Whether the corpus's default rules keep good prose in every language. One command makes every figure of
docs/results.md's table of languages: python benchmarks/languages.py [--data FOLDER] [--only PART] [--every]

declaration  the articles of the declaration of human rights in more than 300 languages (its preamble is a single
             sentence), cut where a paragraph ends into pages that hold the same share of the whole in each language, a
             sixth (English: 310 words) and a twelfth; thirty pages a language, which begin at different paragraphs
prose        novels, stories, posts, reviews, Wikipedia and answers in the languages that have some, in pages of about
             2,000 characters (Chinese: 700)

A page is kept where it passes identification of its language and every default rule. ``misjudged`` counts apart those
that were lost because another language was told. ``--every`` prints all languages, not the largest and the worst.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trivium.corpus.c4 import drop_lines
from trivium.corpus.languages import identify
from trivium.corpus.quality import LINE_RULES, check, chosen
from trivium.corpus.settings import CorpusSettings

HERE = Path(__file__).resolve().parent

LARGEST = {
    "eng": "en", "cmn_hans": "zh", "hin": "hi", "spa": "es", "arb": "ar", "fra": "fr", "ben": "bn", "por_BR": "pt",
    "rus": "ru", "ind": "id", "urd": "ur", "deu_1901": "de", "jpn": "ja", "pcm": "pcm", "mar": "mr", "vie": "vi",
    "hau_NG": "ha", "tur": "tr", "pnb": "pnb", "swh": "sw", "tgl": "tl", "tam": "ta", "pes_1": "fa", "kor": "ko",
    "tha": "th", "jav": "jv", "ita": "it", "guj": "gu", "amh": "am", "kan": "kn", "bho": "bho", "pan": "pa",
    "yor": "yo", "mya": "my", "pol": "pl", "lin": "ln", "mal": "ml", "ukr": "uk", "uzn_latn": "uz", "ibo": "ig",
}
"""The 40 largest languages that have a text here, by speakers of it as a first or second language (Ethnologue, 26th
edition, 2023, as Wikipedia's "List of languages by total number of speakers" gives it; varieties of Chinese and Arabic
that are written as the standard count with it): names in udhr2 and codes."""


class Rules:
    """The default rules, as the corpus stage applies them."""

    def __init__(self) -> None:
        settings = CorpusSettings()
        names = chosen(settings.rules, settings.without)
        self.language = settings.language
        self.thresholds = settings.thresholds_of()
        self.of_lines = [name for name in names if name in LINE_RULES]
        self.of_texts = [name for name in names if name not in LINE_RULES]

    def judge(self, text: str) -> tuple[str, str | None]:
        """``(the language told, why the page is rejected)``."""
        code, _ = identify(text, self.language)
        return code, self.fault(text, code)

    def fault(self, text: str, code: str) -> str | None:
        """Why the page is rejected if it is in that language."""
        thresholds = self.thresholds.get(code, self.thresholds["*"])
        before = [name for name in self.of_texts if name.startswith("gopher")]
        if reason := check(text, before, thresholds):
            return reason
        text, _ = drop_lines(text, self.of_lines, thresholds)
        return check(text, [name for name in self.of_texts if name not in before], thresholds)


def measure(pages: Iterable[str], expected: str | None, rules: Rules) -> dict[str, Any]:
    """Pages, kept ones, those kept if the language were told right, and the reasons."""
    count = kept = right = told = 0
    reasons, others = Counter[str](), Counter[str]()
    for text in pages:
        count += 1
        code, reason = rules.judge(text)
        kept += reason is None
        told += code == expected
        if code != expected:
            others[code] += 1
        if reason is not None:
            reasons[reason.split(":")[0]] += 1
            right += expected is not None and code != expected and rules.fault(text, expected) is None
    return {"pages": count, "kept": kept, "misjudged": right, "told": told, "as": dict(others.most_common(3)),
            "reasons": dict(reasons.most_common(4))}


def pages_of(text: str, share: float) -> list[str]:
    """Pieces of whole lines that hold that share of the text's characters, beginning at 30 places."""
    lines = articles(text)
    wanted, found = share * sum(map(len, lines)), []
    for first in range(0, len(lines), max(1, len(lines) // 30)):
        size, last = 0, first
        while last < len(lines) and size < wanted:
            size, last = size + len(lines[last]), last + 1
        if size >= wanted:
            found.append("\n".join(lines[first:last]))
    return found


def articles(text: str) -> list[str]:
    """The lines from the first article on: short blocks of lines that begin with a short one, three times in a
    row."""
    lines = [line.strip() for line in text.splitlines()]
    starts = [n for n, line in enumerate(lines) if line and (n == 0 or not lines[n - 1])]
    heads = [len(lines[n]) <= 60 and 2 <= after - n <= 6 and bool(lines[n + 1])
             for n, after in itertools.pairwise([*starts, len(lines)])]
    first = next((start for n, start in enumerate(starts[:-2]) if all(heads[n:n + 3])), 0)
    return list(filter(None, lines[first:]))


def declaration(data: Path, rules: Rules) -> dict[str, dict[str, Any]]:
    """Figures by language and share."""
    figures: dict[str, dict[str, Any]] = {}
    with zipfile.ZipFile(data / "nltk_data/udhr2.zip") as packed:
        for name in sorted(packed.namelist()):
            key = Path(name).stem
            text = packed.read(name).decode("utf-8-sig")
            if name.endswith(".txt") and len(text) > 2000:
                figures[key] = {f"1/{n}": measure(pages_of(text, 1 / n), LARGEST.get(key), rules) for n in (6, 12)}
    return figures


def prose(data: Path, rules: Rules) -> dict[str, dict[str, Any]]:
    """Figures by kind of text."""
    return {name: measure(pages, name.split()[0], rules) for name, pages in _prose(data)}


def _prose(data: Path) -> Iterator[tuple[str, Iterable[str]]]:
    yield "en novels", _cut(map(_joined, _packed(data / "english-books/english_novels_97.tar.gz", ".txt")), 2000, 10)
    yield "en posts without braces", [
        body for text in _packed(data / "english-docs/18f-posts.tar.gz", ".md")
        if "{" not in (body := re.sub(r"\A---.*?\n---\n", "", text, flags=re.DOTALL))]
    with zipfile.ZipFile(data / "nltk_data/movie_reviews.zip") as packed:
        yield "en film reviews", [packed.read(name).decode() for name in packed.namelist() if name.endswith(".txt")]
    for language in ("en", "fr", "sw", "pt", "af", "zu"):
        stories = [_story(path.read_text(encoding="utf-8")) for path in sorted(
            (data / f"childrens-stories/african-storybook/{language}").glob("*.md"))]
        yield f"{language} stories", [story for story in stories if len(story) >= 500]
    for name in ("chinese-classic-novels", "classical-modern-shiji"):
        yield f"zh {name}", _cut(_packed(data / f"chinese-text/{name}.tar.gz", ".txt"), 700, every=5)
    answers = json.loads((data / "LLaMA-Factory-data/alpaca_zh_demo.json").read_text(encoding="utf-8"))
    yield "zh answers of 100 characters and more", [row["output"] for row in answers if len(row["output"]) >= 100]


def _packed(archive: Path, suffix: str) -> Iterator[str]:
    with tarfile.open(archive) as packed:
        for member in packed:
            file = packed.extractfile(member) if member.name.endswith(suffix) else None
            if file is not None:
                yield file.read().decode("utf-8-sig", "replace")


def _story(text: str) -> str:
    """One paragraph of the sentences, without the marks of pages, the title and the licence at the end."""
    lines = [line.strip() for line in text.split("\n")]
    return " ".join(line for line in lines if line and not line.startswith(("#", "*", "!", "License", "Author")))


def _joined(text: str) -> str:
    """Paragraphs of lines that were cut to one width."""
    return "\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text))


def _cut(texts: Iterable[str], characters: int, every: int = 1) -> Iterator[str]:
    """Pages of whole lines, of at least so many characters; each ``every``-th."""
    number = 0
    for text in texts:
        page, size = list[str](), 0
        for line in filter(None, map(str.strip, text.splitlines())):
            page.append(line)
            size += len(line)
            if size >= characters:
                if number % every == 0:
                    yield "\n".join(page)
                number, page, size = number + 1, [], 0


def _share(row: dict[str, Any]) -> float:
    return row["kept"] / max(1, row["pages"])


def _line(name: str, row: dict[str, Any]) -> str:
    lost = row["misjudged"]
    return (f"{name:44}{row['pages']:>7}{100 * _share(row):>8.1f} %{row['told']:>7}{lost:>7}  {row['reasons']} "
            f"{row['as']}")


def main() -> None:
    """Measure both parts, or one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared/data")
    parser.add_argument("--only", choices=["declaration", "prose"])
    parser.add_argument("--every", action="store_true", help="print all languages of the declaration")
    options = parser.parse_args()
    rules, figures = Rules(), dict[str, Any]()
    print(f"{'':44}{'pages':>7}{'kept':>10}{'told':>7}{'lost':>7}")
    if options.only != "prose":
        found = figures["declaration"] = declaration(options.data, rules)
        for share in ("1/6", "1/12"):
            rows = {name: sizes[share] for name, sizes in found.items()}
            print(f"\npages of {share} of the declaration")
            shown = rows if options.every else {name: rows[name] for name in LARGEST}
            for name, row in shown.items():
                print(_line(name, row))
            shares = [_share(row) for row in rows.values()]
            print(f"{len(rows)} languages; {sum(share >= 0.95 for share in shares)} keep 95 % and more, "
                  f"{sum(share == 1 for share in shares)} all, {sum(share < 0.5 for share in shares)} less than half; "
                  f"{100 * sum(row['kept'] for row in rows.values()) / sum(row['pages'] for row in rows.values()):.1f} "
                  "% of all pages")
            worst = sorted(rows, key=lambda name: _share(rows[name]))[:25]
            for name in worst:
                print("  " + _line(name, rows[name]))
    if options.only != "declaration":
        print()
        found = figures["prose"] = prose(options.data, rules)
        for name, row in found.items():
            print(_line(name, row))
    print(json.dumps({"benchmark": "languages", "settings": asdict(rules.language), "results": figures}))


if __name__ == "__main__":
    main()
