"""The tables, in SQLite beside the project or in PostgreSQL. ``events`` is appended to and never changed; it alone
holds the work. The other tables hold what must be forgotten some day: names and passwords, sessions, invites, tries."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy import event as hooks
from sqlalchemy.engine import Connection, Engine

from trivium.errors import TriviumError

FILE = "feedback.sqlite"
VERSION = "1"

_tables = sql.MetaData()
_number = sql.BigInteger().with_variant(sql.Integer, "sqlite")  # SQLite counts up only for INTEGER
events = sql.Table("events", _tables, sql.Column("id", _number, primary_key=True, autoincrement=True),
                   sql.Column("at", sql.Double, nullable=False), sql.Column("kind", sql.Text, nullable=False),
                   sql.Column("who", _number), sql.Column("body", sql.Text, nullable=False), sqlite_autoincrement=True)
people = sql.Table("people", _tables, sql.Column("id", _number, primary_key=True, autoincrement=True),
                   sql.Column("name", sql.Text, nullable=False, unique=True),
                   sql.Column("role", sql.Text, nullable=False), sql.Column("kind", sql.Text, nullable=False),
                   sql.Column("password", sql.Text), sql.Column("added_at", sql.Double, nullable=False),
                   sql.Column("removed_at", sql.Double), sqlite_autoincrement=True)
sessions = sql.Table("sessions", _tables, sql.Column("token", sql.Text, primary_key=True),
                     sql.Column("person", _number, nullable=False), sql.Column("expires", sql.Double, nullable=False))
invites = sql.Table("invites", _tables, sql.Column("token", sql.Text, primary_key=True),
                    sql.Column("role", sql.Text, nullable=False), sql.Column("note", sql.Text, nullable=False),
                    sql.Column("person", _number), sql.Column("made_at", sql.Double, nullable=False),
                    sql.Column("expires", sql.Double, nullable=False), sql.Column("used_at", sql.Double))
tries = sql.Table("tries", _tables, sql.Column("id", _number, primary_key=True, autoincrement=True),
                  sql.Column("key", sql.Text, nullable=False, index=True), sql.Column("at", sql.Double, nullable=False))
pictures = sql.Table("pictures", _tables, sql.Column("name", sql.Text, primary_key=True),
                     sql.Column("type", sql.Text, nullable=False), sql.Column("data", sql.LargeBinary, nullable=False))
meta = sql.Table("meta", _tables, sql.Column("key", sql.Text, primary_key=True),
                 sql.Column("value", sql.Text, nullable=False))


def is_url(project: str | Path) -> bool:
    """Whether a project is named by a database's URL instead of a folder."""
    return "://" in str(project)


def open_database(project: str | Path, create: bool) -> Engine:
    """The engine of a project: a folder with ``feedback.sqlite``, or a PostgreSQL URL."""
    if is_url(project):
        engine = _postgres(str(project))
    else:
        path = Path(project) / FILE
        if not path.exists():
            if not create:
                raise TriviumError(f"{project}: no feedback project; make one with `trivium feedback create {project}`")
            try:
                Path(project).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise TriviumError(f"{project}: no folder can be made there ({error.strerror})") from error
        keep_private(path)
        engine = _sqlite(path)
    try:
        _prepare(engine, project, create)
    except BaseException:
        engine.dispose()
        raise
    return engine


def keep_private(path: Path) -> None:
    """Make a database that nobody else can read, whatever the umask: it holds passwords' hashes and what people wrote.
    SQLite gives the files beside it (-wal, -shm) the same rights. One of another owner stays as it is.

    Raises :class:`TriviumError` where it cannot be made."""
    try:
        if not path.exists():
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise TriviumError(f"{path}: cannot be written ({error.strerror}); mend its rights or name another folder"
                           ) from error
    with contextlib.suppress(OSError):
        for place in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            if place.exists() and place.stat().st_mode & 0o077:
                place.chmod(0o600)


def _prepare(engine: Engine, project: str | Path, create: bool) -> None:
    """Make the tables where they are missing, and check what is there."""
    try:
        with engine.connect() as connection:
            existing = sql.inspect(connection).has_table("meta")
            whole = sql.inspect(connection).has_table("pictures")
        if not existing:
            if not create:
                raise TriviumError(f"{hidden(project)}: no feedback project; make one with `trivium feedback create "
                                   f"{hidden(project)}`")
            with writing(engine) as connection:
                _tables.create_all(connection)
                for key, value in {"version": VERSION, "secret": secrets.token_hex(32)}.items():
                    if connection.execute(sql.select(meta.c.key).where(meta.c.key == key)).first() is None:
                        connection.execute(meta.insert().values(key=key, value=value))
        if existing and not whole:  # a project from before there were pictures
            with writing(engine) as connection:
                pictures.create(connection, checkfirst=True)
        with engine.connect() as connection:
            version = connection.execute(sql.select(meta.c.value).where(meta.c.key == "version")).scalar()
    except sql.exc.DatabaseError as error:
        raise TriviumError(
            f"{hidden(project)}: cannot be opened as a database ({str(error.orig).strip().splitlines()[0]})") from error
    if version != VERSION:
        raise TriviumError(f"{hidden(project)}: a project of version {version}; this program reads version {VERSION}")


def hidden(project: str | Path) -> str:
    """A project's name for messages, its password left out."""
    return sql.make_url(str(project)).render_as_string() if is_url(project) else str(project)


def _postgres(url: str) -> Engine:
    try:
        parsed = sql.make_url(url)
        if parsed.get_backend_name() != "postgresql":
            raise TriviumError(f"{hidden(url)}: not a PostgreSQL URL; for SQLite name a folder")
        return sql.create_engine(parsed.set(drivername="postgresql+psycopg"), pool_size=20, pool_pre_ping=True)
    except sql.exc.ArgumentError as error:
        raise TriviumError(f"{str(url).partition('://')[0]}://...: not a database URL") from error
    except ModuleNotFoundError as error:
        raise TriviumError("PostgreSQL needs a driver: pip install 'trivium[postgres]'") from error


def _sqlite(path: Path) -> Engine:
    engine = sql.create_engine(sql.URL.create("sqlite", database=str(path)), pool_size=20, connect_args={"timeout": 30})

    @hooks.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin where SQLAlchemy says, below
        # FULL: what is acknowledged survives a power cut
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
            connection.execute(f"PRAGMA {pragma}")

    @hooks.listens_for(engine, "begin")
    def _began(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")

    return engine


class writing:
    """A transaction that writes, ``with writing(engine) as connection``. Only one at a time holds events: in SQLite by
    its nature, in PostgreSQL by a lock, so that their numbers become visible in order. What is not ``durable`` survives
    the end of every process, but a power cut only once something durable has followed it."""

    def __init__(self, engine: Engine, durable: bool = True) -> None:
        self.connection = engine.connect().execution_options(writes=True)
        self.durable = durable or engine.dialect.name != "sqlite"

    def __enter__(self) -> Connection:
        try:
            if not self.durable:
                self._synchronous("NORMAL")
            self.transaction = self.connection.begin()
        except BaseException:
            self.connection.close()
            raise
        return self.connection

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        try:
            if kind is None:
                self.transaction.commit()
            else:
                self.transaction.rollback()
            if not self.durable:
                self._synchronous("FULL")
        finally:
            self.connection.close()

    def _synchronous(self, mode: str) -> None:
        raw = self.connection.connection.dbapi_connection
        assert raw is not None
        raw.execute(f"PRAGMA synchronous={mode}")


LOCK = sql.text("LOCK TABLE events IN SHARE ROW EXCLUSIVE MODE")
LOCK_TRIES = sql.text("LOCK TABLE tries IN SHARE ROW EXCLUSIVE MODE")


def lock_events(connection: Connection) -> None:
    """Let no other process append until this transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(LOCK)


# Statements that every request needs, built once: to build one costs more than to run it.
EVENTS_SINCE = sql.select(events).where(events.c.id > sql.bindparam("last")).order_by(events.c.id)
EVENT_BODY = sql.select(events.c.body).where(events.c.id == sql.bindparam("id"))
APPEND = events.insert()
PRESENT = sql.select(people.c.id).where(people.c.id == sql.bindparam("person"), people.c.removed_at.is_(None))
VISITOR = sql.select(people.c.id, people.c.name, people.c.role).join(sessions, sessions.c.person == people.c.id).where(
    sessions.c.token == sql.bindparam("token"), sessions.c.expires > sql.bindparam("now"),
    people.c.removed_at.is_(None))
