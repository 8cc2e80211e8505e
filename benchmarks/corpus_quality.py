"""How good the corpus builder's filters are on real data whose truth is known. One command makes every figure of
docs/results.md's section on the corpus: python benchmarks/corpus_quality.py [--data FOLDER] [--only NAME]

articles     main texts of 181 news pages: F1 by the measure of scrapinghub/article-extraction-benchmark, reimplemented:
shingles of four
             words, counted; precision and recall are means over pages, F1 is of these means
private      the 1,500 rows of presidio-research: recall by kind of entity, precision by placeholder
harmful      the classifier on labelled tweets kept from training, and on HateCheck's cases, which it was never shown
anything like duplicates   near duplicates among real documents, some of them changed by hand, against brute-force
Jaccard similarity chinese      good Chinese documents: the share that the language rules drop, by rule
languages    paragraphs of the declaration of human rights: the share whose language is told
readers      2,000 damaged copies of real files of all kinds: documents, counted rejects, and the slowest; a crash or a
copy that gives nothing ends it
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import json
import random
import re
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from trivium.corpus.truth import rate

HERE = Path(__file__).resolve().parent
Figures = dict[str, Any]


def articles(data: Path) -> Figures:
    """Both profiles of extraction."""
    from trivium.corpus.extract import extract

    folder = data / "article-extraction-benchmark"
    truth = json.loads((folder / "ground-truth.json").read_text(encoding="utf-8"))
    figures: Figures = {}
    for profile in ("accurate", "fast"):
        precisions, recalls, seconds = [], [], 0.0
        for key, row in truth.items():
            page = gzip.decompress((folder / "html" / f"{key}.html.gz").read_bytes()).decode()
            start = time.perf_counter()
            found = extract(page, "accurate" if profile == "accurate" else "fast", row.get("url"))[0] or ""
            seconds += time.perf_counter() - start
            ours, theirs = _shingles(found), _shingles(row["articleBody"])
            both = (ours & theirs).total()
            precisions.append(both / ours.total() if ours else 0.0 if theirs else 1.0)
            recalls.append(both / theirs.total() if theirs else 0.0 if ours else 1.0)
        precision, recall = float(np.mean(precisions)), float(np.mean(recalls))
        figures[profile] = {
            "f1": 2 * precision * recall / (precision + recall), "precision": precision, "recall": recall,
            "pages": len(truth), "pages_per_second": len(truth) / seconds
        }
    return figures


def _shingles(text: str, n: int = 4) -> Counter[tuple[str, ...]]:
    """Runs of ``n`` words, as often as each occurs; of all words where there are fewer."""
    words = re.findall(r"\w+", text)
    return Counter(zip(*(words[k:] for k in range(n)))) if len(words) >= n else Counter([tuple(words)] if words else [])


PRESIDIO = {
    "EMAIL_ADDRESS": "email", "PHONE_NUMBER": "phone", "CREDIT_CARD": "card", "IBAN_CODE": "iban", "IP_ADDRESS": "ip",
    "US_SSN": "national_id"
}
"""Its kinds of entity that are looked for here. People's names, places, ages, titles and dates are not."""


def private(data: Path) -> Figures:
    """Recall by entity; precision by placeholder, where one stands for an entity of its kind."""
    from trivium.corpus.private import PLACEHOLDERS, redact

    kinds = {mark: "ip" if name.startswith("ip") else name for name, mark in PLACEHOLDERS.items()}
    mark = re.compile("|".join(map(re.escape, kinds)))
    found, there, right, said = (Counter[str]() for _ in range(4))
    missed: dict[str, list[str]] = defaultdict(list)
    rows = json.loads((data / "presidio-research/data/synth_dataset_v2.json").read_text(encoding="utf-8"))
    for row in rows:
        text, spans = row["full_text"], [span for span in row["spans"] if span["entity_type"] in PRESIDIO]
        redacted = redact(text)[0]
        here: Counter[str] = Counter()
        for span in spans:
            kind = PRESIDIO[span["entity_type"]]
            there[kind] += 1
            if span["entity_value"] not in redacted:
                found[kind] += 1
                here[kind] += 1
            else:
                missed[kind].append(span["entity_value"])
        for placeholder in mark.findall(redacted):
            kind = kinds[placeholder]
            said[kind] += 1
            right[kind] += here[kind] > 0
            here[kind] -= 1
    return {
        "rows": len(rows), "recall": {kind: rate(found[kind], there[kind])
                                      for kind in there},
        "precision": {kind: rate(right[kind], said[kind])
                      for kind in said}, "missed": {kind: values[:6]
                                                    for kind, values in missed.items()}
    }


def harmful(data: Path) -> Figures:
    """Trained on four fifths of the tweets; the other fifth and HateCheck are measured."""
    from trivium.corpus.classifier import FeatureSettings, measured, train
    from trivium.randomness import derive

    with open(data / "hate-speech-offensive/labeled_data.csv", encoding="utf-8", newline="") as file:
        rows = {row["tweet"]: row["class"] in ("0", "1") for row in csv.DictReader(file)}
    texts, labels = list(rows), list(rows.values())
    aside = [derive(0, "heldout", text) / 2**64 < 0.2 for text in texts]
    figures: Figures = {"tweets": len(texts), "harmful": sum(labels)}
    for characters in (False, True):
        made = train(texts, labels, "harmful", FeatureSettings(characters=characters), 10.0, aside)
        name = "words and characters" if characters else "words"
        figures[name] = made.header["heldout"]
    with open(data / "hatecheck/test_suite_cases.csv", encoding="utf-8", newline="") as file:
        cases = [(row["test_case"], row["label_gold"] == "hateful") for row in csv.DictReader(file)]
    figures["hatecheck"] = measured([made.score(text) for text, _ in cases], [label for _, label in cases])
    return figures


def duplicates(data: Path, count: int = 700) -> Figures:
    """Real documents, a third of them again with words changed; every pair is compared by its true Jaccard
    similarity."""
    from trivium.corpus.duplicates import DuplicateSettings, clusters, near_pairs, shingles, write_marks
    from trivium.corpus.words import plain_hashes

    rng, texts = random.Random(0), [text for text in _prose(data) if len(text.split()) >= 60][:count]
    for text in texts[: count // 2]:
        words = text.split()
        for _ in range(max(1, round(len(words) * rng.choice([0.002, 0.005, 0.01, 0.02, 0.03, 0.05])))):
            words[rng.randrange(len(words))] = rng.choice(words)
        texts.append(" ".join(words))
    settings = DuplicateSettings()
    with tempfile.TemporaryDirectory() as folder:
        plain = plain_hashes(texts)
        write_marks(texts, plain, settings, 0, Path(folder))
        pairs, _ = near_pairs([Path(folder)], [0], np.empty(0, np.int64), settings.threshold, 0, 1)
    together = dict(zip(*(part.tolist() for part in clusters(pairs))))
    sets = [np.unique(shingles(text, hashes, settings.run)) for text, hashes in zip(texts, plain, strict=True)]
    similar: Counter[str] = Counter()
    caught: Counter[str] = Counter()
    wrong = checked = 0
    for one, other in itertools.combinations(range(len(texts)), 2):
        both = len(np.intersect1d(sets[one], sets[other], assume_unique=True))
        jaccard = both / (len(sets[one]) + len(sets[other]) - both)
        joined = one in together and together[one] == together.get(other)
        for limit in (0.7, 0.8, 0.9):
            if jaccard >= limit:
                similar[f"{limit}"] += 1
                caught[f"{limit}"] += joined
        if joined:
            checked, wrong = checked + 1, wrong + (jaccard < 0.6)
    return {
        "documents": len(texts), "recall_at": {limit: rate(caught[limit], similar[limit])
                                               for limit in sorted(similar)},
        "precision (true similarity at least 0.6)": rate(checked - wrong, checked)
    }


def _prose(data: Path) -> list[str]:
    found = []
    with tarfile.open(data / "english-docs/digitalgov.tar.gz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".md") else None
            if file is not None:
                found.append(file.read().decode("utf-8", "replace"))
    return found


def chinese(data: Path) -> Figures:
    """The share of good documents that any rule of the defaults drops: chapters of classics, their modern translations,
    and product reviews of some length, as the reviews of one product on a page. Pages of ten are counted once more
    without those on which somebody filled a review by writing one phrase three times in a row: a page that the rules
    about repetition are meant for."""
    from trivium.corpus.languages import LanguageSettings, identify
    from trivium.corpus.quality import LINE_RULES, check, chosen
    from trivium.corpus.settings import CorpusSettings

    settings = CorpusSettings()
    thresholds = settings.thresholds_of()
    rules = [rule for rule in chosen(settings.rules, []) if rule not in LINE_RULES]
    texts: dict[str, list[str]] = {"classic novels": [], "histories, classical": [], "histories, modern": []}
    for name, archive_name in (("novels", "chinese-classic-novels"), ("shiji", "classical-modern-shiji")):
        with tarfile.open(data / f"chinese-text/{archive_name}.tar.gz") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name.endswith(".txt") else None
                if file is not None and not member.name.endswith("数据来源.txt"):
                    kind = "classic novels" if name == "novels" else "histories, modern" if member.name.endswith(
                        "target.txt") else "histories, classical"
                    texts[kind].append(file.read().decode("utf-8-sig"))
    with zipfile.ZipFile(data / "ChineseNlpCorpus/online_shopping_10_cats.zip") as packed:
        member = next(name for name in packed.namelist() if name.endswith(".csv"))
        rows = list(csv.DictReader(packed.read(member).decode("utf-8-sig").splitlines()))
    by_kind: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["label"] == "1" and row["review"]:
            by_kind[row["cat"]].append(row["review"].strip())
    texts["reviews of 100 characters and more"] = [
        text for found in by_kind.values() for text in found if len(text) >= 100
    ]
    reviews = [found[k:k + 10] for found in by_kind.values() for k in range(0, len(found) - 9, 10)]
    texts["reviews, ten to a page"] = ["\n".join(page) for page in reviews]
    texts["reviews, ten to a page, none of them filled"] = [
        "\n".join(page) for page in reviews if not any(re.search(r"(.{2,}?)\1\1", text) for text in page)
    ]
    figures: Figures = {}
    language = LanguageSettings(keep=["zh"])
    for kind, documents in texts.items():
        reasons: Counter[str] = Counter()
        for text in documents:
            code, _ = identify(text, language)
            reason = f"language.{code}" if code != "zh" else check(text, rules, thresholds["zh"])
            if reason:
                reasons[reason.split(":")[0]] += 1
        figures[kind] = {"dropped": rate(reasons.total(), len(documents)), "reasons": dict(reasons.most_common())}
    return figures


UDHR = {
    "eng": "en", "fra": "fr", "spa": "es", "ita": "it", "por_PT": "pt", "nld": "nl", "pol": "pl", "rus": "ru",
    "ukr": "uk", "cmn_hans": "zh", "jpn": "ja", "kor": "ko", "tha": "th", "arb": "ar", "heb": "he", "hin": "hi",
    "tur": "tr", "vie": "vi", "swh": "sw", "afr": "af", "zul": "zu", "ell_monotonic": "el", "ces": "cs", "hun": "hu",
    "fin": "fi", "swe": "sv", "bul": "bg", "ind": "id", "cat": "ca"
}


def languages(data: Path) -> Figures:
    """Paragraphs of 25 characters and more."""
    from trivium.corpus.languages import LanguageSettings, identify

    right, sure, wrong = 0, 0, Counter[str]()
    paragraphs = []
    with zipfile.ZipFile(data / "nltk_data/udhr2.zip") as packed:
        for name, code in UDHR.items():
            paragraphs += [(code, line.strip()) for line in packed.read(f"udhr2/{name}.txt").decode().splitlines()
                           if len(line.strip()) >= 25]
    for code, text in paragraphs:
        found, _ = identify(text, LanguageSettings())
        right, sure = right + (found == code), sure + (found != "und")
        if found not in (code, "und"):
            wrong[f"{code} for {found}"] += 1
    return {
        "languages": len(UDHR), "told_right": rate(right, len(paragraphs)),
        "right_where_one_is_named": rate(right, sure), "confused": dict(wrong.most_common(5))
    }


REAL_FILES = ("warc-warcio/*", "warc-whirlwind/*", "warc-aut/*", "article-extraction-benchmark/html/*.gz",
              "human-eval/*.gz", "nltk_data/*.zip", "english-docs/*.tar.gz", "self-instruct/data/*.jsonl",
              "mmlu/test/*.csv", "childrens-stories/pratham-books/en/*.md")


def readers(data: Path, copies: int = 2000, largest: int = 1_500_000) -> Figures:
    """Bytes changed, cut out and put in, and ends cut off, at places that a seed chooses."""
    from trivium.data.readers import KNOWN, OLD_CRAWL, Document, InputFile, Limits, read
    from trivium.data.unpack import COMPRESSED

    kinds = [[
        path for path in sorted(data.glob(pattern))
        if path.name.endswith((*KNOWN, *OLD_CRAWL, *COMPRESSED)) and path.stat().st_size <= largest
    ] for pattern in REAL_FILES]
    kinds = [paths for paths in kinds if paths]
    counted: Counter[str] = Counter()
    slowest = (0.0, "")
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(copies):
            rng = random.Random(seed)
            source = rng.choice(rng.choice(kinds))
            content = bytearray(source.read_bytes())
            for _ in range(rng.randint(1, 8)):
                place = rng.randrange(len(content) or 1)
                content[place:place + rng.choice([0, 1, 1, 200])] = rng.randbytes(rng.choice([0, 1, 1, 40]))
            if rng.random() < 0.25:
                del content[rng.randrange(len(content) or 1):]
            path = Path(folder, source.name)
            path.write_bytes(content)
            start = time.process_time()
            found = Counter(
                "documents" if isinstance(item, Document) else "rejects"
                for item in read(InputFile(path, source.name, "mutated"), Limits(max_unpacked_bytes=64 << 20)))
            slowest = max(slowest, (time.process_time() - start, f"{source.name}, seed {seed}"))
            if not found:
                raise SystemExit(f"{source}, seed {seed}: neither a document nor a reject")
            counted += found
            path.unlink()
    return {"copies": copies, **counted, "slowest_seconds": slowest[0], "slowest": slowest[1]}


PARTS: dict[str, Callable[[Path], Figures]] = {
    part.__name__: part
    for part in (articles, private, harmful, duplicates, chinese, languages, readers)
}


def main() -> None:
    """Measure everything, or one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared/data")
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; repeatable")
    options = parser.parse_args()
    figures = {}
    for name in options.only or PARTS:
        start = time.perf_counter()
        figures[name] = PARTS[name](options.data)
        print(f"\n{name} ({time.perf_counter() - start:.0f} s)", json.dumps(figures[name], indent=1,
                                                                            ensure_ascii=False), flush=True)
        sys.stdout.flush()
    print(json.dumps({"benchmark": "corpus_quality", "results": figures}, ensure_ascii=False))


if __name__ == "__main__":
    main()
