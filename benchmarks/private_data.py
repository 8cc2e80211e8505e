"""How well private data is found, by kind: precision and recall on English sentences of presidio-research and on
Chinese ones of private_chinese.py. One command prints the tables of docs/corpus.md: python benchmarks/private_data.py

A value is found where a replacement of its kind covers all of it; a replacement is right where it lies upon a value of
its kind. Recall: of the values, the share that is found. Precision: of the replacements, the share that is right.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from private_chinese import Sentence, drawn, with_names, written

from trivium.corpus.private import spans
from trivium.corpus.truth import rate

HERE = Path(__file__).resolve().parent
PRESIDIO = {
    "EMAIL_ADDRESS": "email", "PHONE_NUMBER": "phone", "CREDIT_CARD": "card", "IBAN_CODE": "iban", "IP_ADDRESS": "ip",
    "US_SSN": "national_id"
}
"""Its kinds of entity that the rules promise. People, places, street addresses, organizations, titles, ages, dates,
nationalities, domains, zip codes and driving licences are not among them."""


def english(data: Path, kinds: Mapping[str, str] = PRESIDIO) -> dict[str, list[Sentence]]:
    """The two sets of presidio-research."""
    sets = {}
    for name, file in (("English, 1,500 sentences", "data/synth_dataset_v2.json"),
                       ("English, 100 more", "tests/data/generated_small.json")):
        rows = json.loads((data / "presidio-research" / file).read_text(encoding="utf-8"))
        sets[name] = [Sentence(row["full_text"], tuple(
            (span["start_position"], span["end_position"], kinds[span["entity_type"]])
            for span in row["spans"] if span["entity_type"] in kinds)) for row in rows]
    return sets


def measured(sentences: Iterable[Sentence], show: bool = False) -> dict[str, tuple[int, int, int, int]]:
    """By kind: values found, values, replacements that are right, replacements."""
    found, there, right, said = (Counter[str]() for _ in range(4))
    for sentence in sentences:
        truth = [(start, end, _kind(kind)) for start, end, kind in sentence.spans]
        given = [(start, end, _kind(kind)) for start, end, kind in spans(sentence.text)]
        for start, end, kind in truth:
            there[kind] += 1
            hit = any(a <= start and end <= b and other == kind for a, b, other in given)
            found[kind] += hit
            if show and not hit:
                print(f"missed {kind}: {sentence.text!r}")
        for a, b, kind in given:
            said[kind] += 1
            hit = any(a < end and start < b and other == kind for start, end, other in truth)
            right[kind] += hit
            if show and not hit:
                print(f"wrong {kind} {sentence.text[a:b]!r}: {sentence.text!r}")
    return {kind: (found[kind], there[kind], right[kind], said[kind]) for kind in sorted({*there, *said})}


def _kind(kind: str) -> str:
    return "ip" if kind.startswith("ip") else kind


def measured_names(sentences: Iterable[Sentence], pipeline: str) -> tuple[int, int, int, int]:
    """Of people's names, what :func:`measured` gives of numbers; a name is found where one that was found overlaps."""
    from trivium.corpus.names import names

    found = there = right = said = 0
    for sentence in sentences:
        truth, given = [(a, b) for a, b, _ in sentence.spans], names(sentence.text, pipeline)
        there, said = there + len(truth), said + len(given)
        found += sum(any(a < end and start < b for a, b in given) for start, end in truth)
        right += sum(any(a < end and start < b for start, end in truth) for a, b in given)
    return found, there, right, said


def main() -> None:
    """Print a table for each set; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared/data")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", type=int, default=1000, help="Chinese sentences drawn of each form")
    parser.add_argument("--show", action="store_true", help="print what is missed and what is wrong")
    parser.add_argument("--names", metavar="PIPELINE", help="measure names, too, with this pipeline of spaCy")
    given = parser.parse_args()
    sets = english(given.data) if (given.data / "presidio-research").is_dir() else {}
    sets |= {"Chinese, by hand": written(), "Chinese, drawn": drawn(given.seed, given.each)}
    results = {}
    for name, sentences in sets.items():
        results[name] = measured(sentences, given.show)
        print(f"\n{name}: {len(sentences):,} texts\n\n| kind | recall | precision |\n|---|---:|---:|")
        for kind, (found, there, right, said) in results[name].items():
            shares = (f"{100 * part / whole:.1f} % of {whole:,}" if whole else "–" for part, whole in (
                (found, there), (right, said)))
            print(f"| {kind} | {' | '.join(shares)} |")
    if given.names:
        people = {"Chinese names": with_names(given.seed, given.each)}
        if sets.keys() > {"Chinese, by hand", "Chinese, drawn"}:
            people["English names"] = english(given.data, {"PERSON": "name"})["English, 1,500 sentences"]
        for name, sentences in people.items():
            results[name] = {"name": measured_names(sentences, given.names)}
            print(name, *results[name]["name"])
    print(json.dumps({"benchmark": "private_data", "results": {
        name: {kind: {"recall": rate(found, there), "precision": rate(right, said)}
               for kind, (found, there, right, said) in kinds.items()} for name, kinds in results.items()}}))


if __name__ == "__main__":
    main()
