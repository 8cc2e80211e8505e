"""Where words stand: an index of the texts of items and answers, in the project's own database.

The index is made of the events alone, and catches up with them whenever somebody searches. A Chinese, Japanese or
Korean character is a word of its own, so that any part of a sentence is found; of other words their beginning is.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator

import numpy as np
import sqlalchemy as sql
from sqlalchemy.engine import Connection

from trivium.feedback.database import meta, writing
from trivium.feedback.state import Event
from trivium.feedback.store import Store

BATCH = 500
"""Events that are taken in at once; between two batches others may write."""

LONGEST = 250_000
"""Characters of one event that are indexed."""

KINDS = ("item", "judgement", "demonstration", "skip", "settled")

_CHARACTER = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_CHARACTER}]|[^\\W_{_CHARACTER}]+")
_PIECE = re.compile(r'"([^"]*)"?|(\S+)')

_TABLES = {
    "sqlite": (
        "CREATE TABLE IF NOT EXISTS texts (event INTEGER PRIMARY KEY, entry INTEGER NOT NULL)",
        "CREATE VIRTUAL TABLE IF NOT EXISTS texts_words USING fts5(words, content='', detail=full, prefix='1 2', "
        "tokenize='unicode61 remove_diacritics 2')"),
    "postgresql": (
        "CREATE TABLE IF NOT EXISTS texts (event BIGINT PRIMARY KEY, entry BIGINT NOT NULL, words TSVECTOR NOT NULL)",
        "CREATE INDEX IF NOT EXISTS texts_words ON texts USING GIN (words)")}
_ADD = {
    "sqlite": ("INSERT INTO texts (event, entry) VALUES (:event, :entry)",
               "INSERT INTO texts_words (rowid, words) VALUES (:event, :words)"),
    "postgresql": ("INSERT INTO texts (event, entry, words) VALUES (:event, :entry, to_tsvector('simple', :words))", )}
_FIND = {  # in one text: to fetch a row for each of 100,000 events takes ten times as long
    "sqlite": "SELECT group_concat(rowid) FROM texts_words WHERE texts_words MATCH :query",
    "postgresql": "SELECT string_agg(event::text, ',') FROM texts WHERE words @@ to_tsquery('simple', :query)"}


def words(text: str) -> list[str]:
    """The words of a text, by which it is found."""
    return _WORD.findall(text.lower())


class Search:
    """The index of a store."""

    def __init__(self, store: Store) -> None:
        self.store, self.dialect = store, store.engine.dialect.name
        self._lock = threading.Lock()
        self._made = False
        self._events = self._entries = np.zeros(0, np.int64)  # of each event with words, the entry that it belongs to

    def find(self, text: str) -> np.ndarray:
        """The numbers of the entries that hold all the words of ``text`` in one place, and what stands between
        quotation marks as it stands."""
        query = _query(text, self.dialect)
        if not query:
            return np.zeros(0, np.int64)
        with self._lock:
            self.catch_up()
            with self.store.engine.connect() as connection:
                known = int(self._events[-1]) if len(self._events) else 0
                fresh = connection.execute(sql.text(
                    "SELECT event, entry FROM texts WHERE event > :known ORDER BY event"), {"known": known}).all()
                if fresh:
                    both = np.array([tuple(row) for row in fresh], np.int64)
                    self._events = np.concatenate([self._events, both[:, 0]])
                    self._entries = np.concatenate([self._entries, both[:, 1]])
                found = connection.execute(sql.text(_FIND[self.dialect]), {"query": query}).scalar()
            numbers = np.fromstring(found or "", np.int64, sep=",")
            return np.unique(self._entries[np.searchsorted(self._events, numbers)])

    def catch_up(self) -> None:
        """Take in what has happened since the last time."""
        if not self._made:
            with writing(self.store.engine) as connection:
                for statement in _TABLES[self.dialect]:
                    connection.execute(sql.text(statement))
            self._made = True
        with self.store.state() as state:
            newest = state.last
        while self._take(newest):
            pass

    def _take(self, newest: int) -> bool:
        """Take in a batch of events up to the number ``newest``; whether there may be more."""
        with self.store.engine.connect() as connection:
            reached = self._reached(connection)
        if reached >= newest:
            return False
        last = min(newest, reached + BATCH)
        # made before the transaction: who appends holds the store first and the database then
        rows = list(self._rows(event for event in self.store.events_between(reached, last) if event.kind in KINDS))
        with writing(self.store.engine, durable=False) as connection:
            if self.dialect == "postgresql":
                connection.execute(sql.text("LOCK TABLE texts IN SHARE ROW EXCLUSIVE MODE"))
            if self._reached(connection) == reached:  # else another has taken them in
                for statement in _ADD[self.dialect] if rows else ():
                    connection.execute(sql.text(statement), rows)
                connection.execute(meta.delete().where(meta.c.key == "searched"))
                connection.execute(meta.insert().values(key="searched", value=str(last)))
        return True

    @staticmethod
    def _reached(connection: Connection) -> int:
        value = connection.execute(sql.select(meta.c.value).where(meta.c.key == "searched")).scalar()
        return int(value or 0)

    def _rows(self, events: Iterator[Event]) -> Iterator[dict[str, object]]:
        """What is kept of events that hold words."""
        with self.store.state() as state:
            for event in events:
                body = event.body
                if event.kind == "item":
                    entry = event.id
                    texts = [body["item"], *(one["content"] for one in body["prompt"]), *body.get("responses", ())]
                elif event.kind == "settled":
                    entry, texts = state.items[body["item"]].event, [body["note"]]
                else:
                    work = state.works[body["work"]]
                    said = body["messages"] if work.item is None else body.get("messages", [])[-1:]
                    entry, texts = state.entry(work), [*(one["content"] for one in said), body.get("note", "")]
                found = " ".join(words("\n".join(texts)[:LONGEST]))
                if found:
                    yield {"event": event.id, "entry": entry, "words": found}


def _query(text: str, dialect: str) -> str:
    """A search in the language of the database."""
    parts = []
    for quoted, plain in _PIECE.findall(text):
        found = words(quoted or plain)
        if not found:
            continue
        begins = not quoted and not re.match(f"[{_CHARACTER}]", found[-1])  # a word's beginning is enough
        if dialect == "sqlite":
            parts.append(f'"{" ".join(found)}"' + ("*" if begins else ""))
        else:
            parts.append(" <-> ".join(f"'{word}'" for word in found) + (":*" if begins else ""))
    return (" AND " if dialect == "sqlite" else " & ").join(parts)
