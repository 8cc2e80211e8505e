"""Who may come in: passwords by argon2, sessions kept by the server, invites that end, and a limit on tries.

Of a session or an invite the database holds only a hash, so nobody who reads it can take one over.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from dataclasses import dataclass

import sqlalchemy as sql
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from sqlalchemy.engine import Connection

from trivium.errors import TriviumError
from trivium.feedback import rows
from trivium.feedback.database import LOCK_TRIES, VISITOR, invites, people, sessions, tries, writing
from trivium.feedback.settings import ROLES
from trivium.feedback.store import Conflict, Store

SESSION_SECONDS = 7 * 86_400
SHORTEST_PASSWORD, LONGEST_PASSWORD = 10, 200
WINDOW_SECONDS = 15 * 60
TRIES_FOR_NAME, TRIES_FROM_ADDRESS = 8, 40
"""Failed tries for one name from one address, and from one address in all, within the window."""

_hasher = PasswordHasher()  # argon2id with the parameters of RFC 9106, low memory: 64 MiB, 3 passes
_hashing = threading.Semaphore(2)  # 64 MiB each: a crowd of logins must not take all memory
_NOBODY = _hasher.hash(secrets.token_hex(16))


class TooManyTries(TriviumError):
    """Somebody guesses; they may go on after ``seconds``."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"too many tries; wait {max(1, seconds // 60)} minutes")
        self.seconds = seconds


@dataclass(frozen=True)
class Visitor:
    """Somebody who is logged in, and the token that their forms must carry."""

    id: int
    name: str
    role: str
    csrf: str


@dataclass(frozen=True)
class Invite:
    """A link that is good once: for a new person, or a new password of person ``person``."""

    token: str  # its hash, which names it but does not open it
    role: str
    note: str
    person: int | None
    expires: float
    used: bool


def hash_password(password: str) -> str:
    """The argon2 hash of a password that is long enough."""
    if not isinstance(password, str) or len(password) < SHORTEST_PASSWORD:
        raise TriviumError(f"the password is too short; use at least {SHORTEST_PASSWORD} characters")
    rows.text(password, "the password", LONGEST_PASSWORD)
    with _hashing:
        return _hasher.hash(password)


class Accounts:
    """The doors of a store."""

    def __init__(self, store: Store) -> None:
        self.store, self.engine = store, store.engine

    # logging in

    def login(self, name: str, password: str, address: str, now: float | None = None) -> str:
        """A new session's token. Raises :class:`TriviumError` that does not say whether the name or the password is
        wrong."""
        now = time.time() if now is None else now
        key = f"name:{hashlib.sha256(name.strip().encode('utf-8', 'replace')).hexdigest()[:24]}:{address}"
        counted = self._count_try(now, {key: TRIES_FOR_NAME, f"address:{address}": TRIES_FROM_ADDRESS})
        with self.engine.connect() as connection:
            person = connection.execute(
                sql.select(people).where(people.c.name == name.strip().replace("\0", ""),
                                         people.c.removed_at.is_(None))).first()
        stored = person.password if person is not None and person.password else None
        try:
            with _hashing:
                # as long for a name that nobody has
                _hasher.verify(stored or _NOBODY, password[:LONGEST_PASSWORD].encode("utf-8", "replace"))
            right = stored is not None
        except (Argon2Error, InvalidHashError):
            right = False
        if not right:
            raise TriviumError("the name or the password is wrong")
        self._forgive(counted)
        assert person is not None and stored is not None
        if _hasher.check_needs_rehash(stored):
            with writing(self.engine) as connection:
                connection.execute(
                    people.update().where(people.c.id == person.id).values(password=hash_password(password)))
        return self.open_session(person.id, now)

    def open_session(self, person: int, now: float | None = None) -> str:
        """A session's token for somebody who has shown who they are."""
        now = time.time() if now is None else now
        token = secrets.token_urlsafe(32)
        with writing(self.engine) as connection:
            connection.execute(sessions.delete().where(sessions.c.expires < now))
            connection.execute(sessions.insert().values(token=_digest(token), person=person,
                                                        expires=now + SESSION_SECONDS))
        return token

    def visitor(self, token: str | None, now: float | None = None) -> Visitor | None:
        """Who holds a session's token; None when it has ended, or never was."""
        if not token or len(token) > 100:
            return None
        with self.engine.connect() as connection:
            row = connection.execute(VISITOR,
                                     {"token": _digest(token), "now": time.time() if now is None else now}).first()
        return Visitor(row.id, row.name, row.role, self.csrf(token)) if row else None

    def logout(self, token: str) -> None:
        """End a session."""
        with writing(self.engine) as connection:
            connection.execute(sessions.delete().where(sessions.c.token == _digest(token)))

    def csrf(self, token: str) -> str:
        """What every form of this session must carry."""
        return hmac.new(self.store.secret, b"csrf:" + token.encode("utf-8", "replace"), hashlib.sha256).hexdigest()

    # invites

    def invite(self, role: str = "annotator", note: str = "", hours: float = 72.0, person: int | None = None,
               now: float | None = None) -> str:
        """A link's token that is good once and ends after ``hours``; with ``person``, it gives that one a new
        password."""
        now = time.time() if now is None else now
        if role not in ROLES:
            raise TriviumError(f"there is no role {role!r}; known: {', '.join(ROLES)}")
        if not 0 < hours <= 24 * 90:
            raise TriviumError(f"{hours:g} hours; an invite is good for up to 90 days")
        token = secrets.token_urlsafe(24)
        with writing(self.engine) as connection:
            connection.execute(invites.insert().values(token=_digest(token), role=role,
                                                       note=rows.text(note, "the note", 200, empty=True), person=person,
                                                       made_at=now, expires=now + 3600 * hours))
        return token

    def open_invites(self, now: float | None = None) -> list[Invite]:
        """Invites that can still be used."""
        query = sql.select(invites).where(invites.c.used_at.is_(None), invites.c.expires
                                          > (time.time() if now is None else now)).order_by(invites.c.made_at)
        with self.engine.connect() as connection:
            return [
                Invite(row.token, row.role, row.note, row.person, row.expires, False)
                for row in connection.execute(query)
            ]

    def open_invite(self, token: str) -> Invite | None:
        """The invite of a token, while it can still be used."""
        digest = _digest(token)
        return next((invite for invite in self.open_invites() if invite.token == digest), None)

    def withdraw(self, digest: str) -> None:
        """End an invite, named by its hash."""
        with writing(self.engine) as connection:
            connection.execute(invites.delete().where(invites.c.token == digest, invites.c.used_at.is_(None)))

    def look_up(self, token: str, address: str, now: float | None = None) -> Invite:
        """The invite of a token. Raises :class:`TriviumError` when it cannot be used."""
        now = time.time() if now is None else now
        counted = self._count_try(now, {f"address:{address}": TRIES_FROM_ADDRESS})
        with self.engine.connect() as connection:
            row = connection.execute(sql.select(invites).where(invites.c.token == _digest(token))).first()
        if row is None or row.used_at is not None or row.expires <= now:
            raise TriviumError("this invitation is not valid any more; ask for a new one")
        self._forgive(counted)
        return Invite(row.token, row.role, row.note, row.person, row.expires, False)

    def password_of(self, person: int) -> str:
        """The hash of somebody's password."""
        with self.engine.connect() as connection:
            return str(connection.execute(sql.select(people.c.password).where(people.c.id == person)).scalar_one())

    def accept(self, token: str, name: str, password: str, address: str, now: float | None = None,
               hashed: str = "") -> str:
        """Use an invite: a new person, or a new password, or the hash of one. Returns a session's token."""
        now = time.time() if now is None else now
        invite = self.look_up(token, address, now)
        hashed = hashed or hash_password(password)
        if invite.person is None and self.store.person(name.strip()):
            raise Conflict(f"the name {name.strip()!r} is taken")

        def use(connection: Connection) -> None:  # whoever comes second finds it used
            used = connection.execute(invites.update().where(invites.c.token == invite.token,
                                                             invites.c.used_at.is_(None)).values(used_at=now))
            if used.rowcount != 1:
                raise TriviumError("this invitation is not valid any more; ask for a new one")

        if invite.person is None:  # in one transaction: a kill leaves the invite unused, or somebody who has come in
            return self.open_session(self.store.add_person(name, invite.role, password=hashed, first=use), now)
        with writing(self.engine) as connection:
            use(connection)
            connection.execute(people.update().where(people.c.id == invite.person,
                                                     people.c.removed_at.is_(None)).values(password=hashed))
            connection.execute(sessions.delete().where(sessions.c.person == invite.person))
        return self.open_session(invite.person, now)

    # tries

    def _count_try(self, now: float, most: dict[str, int]) -> list[int]:
        """Count a try under each key before it is made, so that many at once cannot all find room; returns the tries'
        numbers. Raises :class:`TooManyTries` where a key has had its ``most``."""
        with writing(self.engine, durable=False) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(LOCK_TRIES)
            connection.execute(tries.delete().where(tries.c.at < now - WINDOW_SECONDS))
            for key, bound in most.items():
                times = connection.execute(
                    sql.select(tries.c.at).where(tries.c.key == key).order_by(tries.c.at)).scalars().all()
                if len(times) >= bound:
                    raise TooManyTries(int(times[-bound] + WINDOW_SECONDS - now) + 1)
            made = [connection.execute(tries.insert().values(key=key, at=now)).inserted_primary_key for key in most]
        return [int(key[0]) for key in made if key is not None]

    def _forgive(self, counted: list[int]) -> None:
        """Take back tries that were right."""
        with writing(self.engine, durable=False) as connection:
            connection.execute(tries.delete().where(tries.c.id.in_(counted)))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
