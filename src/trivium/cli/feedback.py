"""The commands of human feedback. Heavy modules are imported inside them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlsplit

import typer

from trivium.cli.limits import AllowHost, BodySeconds, Connections, HeadSeconds, IdleSeconds
from trivium.cli.output import to_json
from trivium.clients import Patience, names
from trivium.errors import TriviumError, counted, extra

if TYPE_CHECKING:
    from trivium.feedback.accounts import Accounts
    from trivium.feedback.store import Imported, Store

app = typer.Typer(
    no_args_is_help=True,
    help="Collect human feedback: projects, imports, people, exports. `trivium annotate` starts the web app.")

Project = Annotated[str, typer.Argument(help="A project's folder, or the URL of its PostgreSQL database.")]
Rejects = Annotated[Path | None,
                    typer.Option(
                        help="Where rows that are refused go, with their reason; beside the file when left out.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="A setting, such as overlap=3. Repeatable.")]


def annotate(
    project: Project, host: Annotated[str,
                                      typer.Option(help="Address to listen on; 0.0.0.0 listens on all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8700,
    prompts: Annotated[list[Path] | None,
                       typer.Option(help="Import these prompts with responses first. Repeatable.")] = None,
    set_: Settings = None,
    url: Annotated[str | None,
                   typer.Option(help="The address that people use, for links, where it is another one.")] = None,
    proxies: Annotated[str,
                       typer.Option(help="Addresses of proxies whose X-Forwarded headers are believed.")] = "127.0.0.1",
    allow_host: AllowHost = None, head_seconds: HeadSeconds = Patience.head, body_seconds: BodySeconds = Patience.body,
    idle_seconds: IdleSeconds = Patience.idle, connections: Connections = Patience.connections
) -> None:
    """Start the annotation app of a project, which is made when it is not there, or of all projects in a folder."""
    with extra("annotate"):
        from trivium.feedback.web import create_app
        from trivium.feedback.web.several import create_front, projects_in
        from trivium.listening import listen, server
    hosts = names(host, *allow_host or [], *([urlsplit(url).hostname or url] if url else []))
    several = [] if "://" in project else projects_in(Path(project))
    if several and (prompts or set_):
        raise TriviumError(f"{project} holds {len(several)} projects: name one of them for --prompts and --set")
    with contextlib.ExitStack() as opened:
        stores = {place.name: opened.enter_context(open_store(str(place))) for place in several} or {
            "": opened.enter_context(open_store(project, create=True))}
        if not several:
            _set(stores[""], set_)
            _import(stores[""], "items", prompts or [], None)
        with listen(host, port) as listening:
            address = (url or f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}").rstrip("/")
            for name, store in stores.items():
                if not any(person.role == "lead" and person.kind == "human" and not person.removed
                           for person in store.people()):
                    root = f"{address}/p/{quote(name)}" if several else address
                    print(f"Open this link within 72 hours to become the lead of {name or 'the project'}:\n  "
                          f"{root}/invite/{_accounts(store).invite('lead', 'the first lead')}")
            print(f"{counted(len(several), 'project') if several else stores[''].settings.title}: {address} "
                  "(Ctrl+C ends it)", flush=True)
            web: Any = (create_front(stores, url, hosts, Path(project).resolve().name) if several else
                        create_app(stores[""], url, hosts))
            sites = [one.state.site for one in (web.projects.values() if several else [web])]
            threading.Thread(target=lambda: [site.catalogue.prepare() for site in sites], daemon=True).start()
            server(web, Patience(head_seconds, body_seconds, idle_seconds, connections),
                   forwarded_allow_ips=proxies, timeout_graceful_shutdown=10).run(sockets=[listening])


@app.command()
def create(project: Project, set_: Settings = None) -> None:
    """Make a project, or change the settings of one."""
    with open_store(project, create=True) as store:
        _set(store, set_)
        for name, value in store.settings.model_dump().items():
            print(f"{name} = {to_json(value)}")


@app.command("import")
def import_(project: Project,
            files: Annotated[list[Path],
                             typer.Argument(help="JSON lines, CSV, Excel: `prompt`, and `responses` to compare.")],
            batch: Annotated[str, typer.Option(help="A name for these items together, where they name none.")] = "",
            deadline: Annotated[str, typer.Option(help="Until when they should be done, as in 2030-12-31 (UTC).")] = "",
            rejects: Rejects = None) -> None:
    """Import prompts with responses to compare, or prompts alone to answer."""
    with open_store(project) as store:
        from trivium.feedback.rows import moment
        at = moment(deadline) if deadline else None
        if deadline and not batch:
            raise TriviumError("--deadline: name the items with --batch, so that it can be changed for all of them")
        _import(store, "items", files, rejects, batch=batch)
        if deadline:
            store.set_deadline(at, batch=batch)


@app.command()
def give(project: Project, item: Annotated[str, typer.Argument(help="The item's id.")], name: str) -> None:
    """Let somebody have an item next."""
    with open_store(project) as store:
        store.give(item, _person(store, name))


@app.command()
def take(project: Project, item: Annotated[str, typer.Argument(help="The item's id.")], name: str) -> None:
    """Take an item from somebody: others do it."""
    with open_store(project) as store:
        store.take(item, _person(store, name))


@app.command()
def quota(project: Project, name: str,
          day: Annotated[int | None, typer.Option(min=0, help="Answers a day (UTC); what the settings say if left out.")
                         ] = None,
          in_all: Annotated[int | None, typer.Option(min=0, help="Answers in all; as above.")] = None) -> None:
    """Set how much somebody may do at most."""
    with open_store(project) as store:
        store.set_quota(_person(store, name), day, in_all)


@app.command()
def deadline(project: Project, when: Annotated[str, typer.Argument(help="As in 2030-12-31T18:00Z, or none.")],
             item: Annotated[str, typer.Option(help="An item's id.")] = "",
             batch: Annotated[str, typer.Option(help="A batch's name.")] = "") -> None:
    """Set until when an item or a batch should be done."""
    if bool(item) == bool(batch):
        raise TriviumError("name either --item or --batch")
    with open_store(project) as store:
        from trivium.feedback.rows import moment
        store.set_deadline(None if when == "none" else moment(when), item, batch)


@app.command()
def judgements(project: Project,
               files: Annotated[list[Path],
                                typer.Argument(help="JSON lines with `id`, `annotator`, `ranking`, ...")],
               add_people: Annotated[bool, typer.Option(help="Add annotators who are not known yet.")] = False,
               rejects: Rejects = None) -> None:
    """Import judgements that were made elsewhere."""
    _each(project, "judgements", files, rejects, add_people)


@app.command()
def scores(project: Project,
           files: Annotated[list[Path] | None,
                            typer.Argument(help="JSON lines with `id` and `scores`, [models][responses].")] = None,
           model: Annotated[list[Path] | None,
                            typer.Option(help="A reward model that scores the items itself; name two or more.")] = None,
           rejects: Rejects = None) -> None:
    """Import an ensemble's scores, or let one score: what it disagrees on is asked first."""
    if files:
        _each(project, "scores", files, rejects)
    if model:
        with open_store(project) as store:
            from trivium.api import load
            from trivium.feedback.simulate import score_items
            count = score_items(store, [load(folder).score for folder in model],
                                lambda done, total: print(f"{done} of {total}", flush=True))
        print(f"{counted(count, 'item')} scored by {counted(len(model), 'model')}")
    if not files and not model:
        raise TriviumError("name files with scores, or reward models with --model")


@app.command()
def invite(project: Project, role: Annotated[str, typer.Option(help="annotator or lead.")] = "annotator",
           note: Annotated[str, typer.Option(help="For whom; only leads see it.")] = "",
           hours: Annotated[float, typer.Option(help="How long the link is good.")] = 72.0,
           count: Annotated[int,
                            typer.Option(min=1, max=1000, help="How many links; each is good for one person.")] = 1,
           password_of: Annotated[str | None,
                                  typer.Option(help="A person who gets a new password instead.")] = None,
           url: Annotated[str, typer.Option(help="The app's address.")] = "http://127.0.0.1:8700") -> None:
    """Make links by which people join, or set a new password."""
    with open_store(project) as store:
        person = _person(store, password_of) if password_of else None
        for _ in range(count):
            print(f"{url.rstrip('/')}/invite/{_accounts(store).invite(role, note, hours, person)}")


@app.command()
def disagreements(
        project: Project, run: Annotated[Path, typer.Argument(help="A run's folder, such as runs/quickstart.")],
        models: Annotated[str, typer.Option(help="Two models of its examination, as in sft,ppo: their answers alone.")
                          ] = "",
        most: Annotated[int, typer.Option(min=1, help="Items at most, the greatest disagreements first.")] = 100,
        as_json: Annotated[bool, typer.Option("--json", help="The numbers as JSON.")] = False) -> None:
    """Ask people what a run leaves open: rankings that its reward model gets wrong, and answers of which no rubric says
    which is better."""

    def opened(folder: Path) -> Callable[[list[dict[str, Any]]], float]:
        from trivium.api import load  # an examination alone needs no model
        return load(folder).score

    with open_store(project, create=True) as store:
        from trivium.feedback.disagreements import of_run
        found = of_run(run, opened, [name.strip() for name in models.split(",") if name], most)
        outcome = store.add_items(found, again=True)
    if as_json:
        print(to_json({"found": len(found), "added": outcome.added, "there_already": outcome.known_already,
                       "asked_again": outcome.again, "refused": len(outcome.rejects)}))
        return
    print(f"{counted(len(found), 'disagreement')} of {run}: {outcome.added} added, {outcome.known_already} there "
          f"already, of which {outcome.again} asked again, {len(outcome.rejects)} refused")
    for reject in outcome.rejects[:3]:
        print(f"  {reject['reason']}: {reject['text'][:100]}")


@app.command()
def people(project: Project) -> None:
    """List everybody and what they have done."""
    with open_store(project) as store:
        from trivium.feedback.dashboard import Dashboard
        for row in Dashboard(store).figures()["people"]:
            state = "removed" if row["removed"] else row["kind"]
            print(f"{row['id']:>4} {row['name']:24} {row['role']:10} {state:10} {row['judged']:6} compared "
                  f"{row['written']:6} written {row['skipped']:6} skipped")


@app.command()
def role(project: Project, name: str, to: Annotated[str, typer.Argument(help="annotator or lead.")]) -> None:
    """Change somebody's role."""
    with open_store(project) as store:
        store.change_role(_person(store, name), to)


@app.command()
def remove(project: Project, name: str, forget: Annotated[bool,
                                                          typer.Option(help="Erase the name, too.")] = False) -> None:
    """End somebody's access. Their work stays."""
    with open_store(project) as store:
        store.remove_person(_person(store, name), forget=forget)


@app.command()
def simulate(
        project: Project, annotators: Annotated[int, typer.Option(min=1, help="People on the panel.")] = 5,
        most: Annotated[int | None, typer.Option(min=1, help="Items that each of them judges at most.")] = None,
        seed: Annotated[int, typer.Option(help="Seed of the panel.")] = 0,
        reward_model: Annotated[Path | None,
                                typer.Option(help="Let this reward model judge instead of the panel.")] = None,
        name: Annotated[str, typer.Option(help="The reward model's name as an annotator.")] = "reward-model") -> None:
    """Let programs annotate: the embedded world's panel, or a reward model."""
    with open_store(project) as store:
        from trivium.feedback import simulate as programs
        if reward_model:
            from trivium.api import load
            counts = {name: programs.reward_model(store, load(reward_model).score, name, most)}
        else:
            counts = programs.panel(store, annotators, seed, most=most)
    for who, count in counts.items():
        print(f"{who:24} {count:6} judged")


@app.command()
def status(project: Project, as_json: Annotated[bool,
                                                typer.Option("--json", help="Every figure as JSON.")] = False) -> None:
    """Print progress and agreement."""
    from trivium.feedback.texts import translate
    with open_store(project) as store:
        from trivium.feedback.dashboard import Dashboard
        figures = Dashboard(store).figures()
    if as_json:
        print(to_json(figures))
        return
    done = {name: value for name, value in figures["progress"].items()
            if any(value if isinstance(value, list) else [value])}
    if not done:
        print("nothing yet: import prompts with `trivium feedback import`, or let people judge a served model with "
              "`trivium serve MODEL --feedback PROJECT`")
    for name, value in done.items():
        words = "median seconds of a comparison" if name == "seconds" else name.replace("_", " ")
        print(f"{words:45} {value:.1f}" if isinstance(value, float) else f"{words:45} {value}")
    known = {name: one for name, one in figures["agreement"].items() if one["value"] is not None}
    if known:
        print("\nWith 95 % intervals; n counts items:")
    for name, one in known.items():
        interval = f"[{one['low']:.3f}, {one['high']:.3f}]" if one["low"] is not None else ""
        print(f"{translate('en', f'fig_{name}'):45} {one['value']:.3f} {interval} n {one['n']}")


@app.command()
def export(project: Project, to: Annotated[Path, typer.Option(help="The folder to write to.")]) -> None:
    """Write demonstrations, rankings, pairs, ratings and thumbs as JSON lines."""
    with open_store(project) as store:
        from trivium.feedback.exports import export_all
        for kind, count in export_all(store, to).items():
            print(f"{to / kind}.jsonl: {counted(count, 'row')}")


def open_store(project: str, create: bool = False) -> Store:
    """Open a project. Raises :class:`TriviumError` where its extra is not installed."""
    with extra("annotate"):
        from trivium.feedback.store import Store
    return Store(project, create)


def _accounts(store: Store) -> Accounts:
    with extra("annotate"):
        from trivium.feedback.accounts import Accounts
    return Accounts(store)


def _set(store: Store, given: list[str] | None) -> None:
    from trivium.yaml_text import read_yaml
    values: dict[str, Any] = {}
    for pair in given or []:
        name, equals, value = pair.partition("=")
        if not equals:
            raise TriviumError(f"--set {pair}: write name=value")
        try:
            values[name.strip()] = read_yaml(value)
        except TriviumError as error:
            raise TriviumError(f"--set {pair}: the value cannot be read: {error}") from error
    if values:
        store.change_settings(**values)


def _person(store: Store, name: str) -> int:
    from trivium.errors import nearest
    person = store.person(name)
    if person is None:
        raise TriviumError(
            f"there is no person {name!r}{nearest(name, [one.name for one in store.people() if not one.removed])}")
    return person.id


def _each(project: str, kind: str, files: list[Path], rejects: Path | None, add_people: bool = False) -> None:
    with open_store(project) as store:
        _import(store, kind, files, rejects, add_people)


def _import(store: Store, kind: str, files: list[Path], rejects: Path | None, add_people: bool = False,
            batch: str = "") -> None:
    """Import files. Every row that is refused is kept with its number, its reason and its text: beside its file, or all
    in ``rejects``."""
    from trivium.files import write_rows
    kept: list[dict[str, Any]] = []
    for file in files:
        bad = _import_file(store, kind, file, add_people, batch)
        kept = [*kept, *bad] if rejects else bad
        if bad:
            place = rejects or file.with_name(f"{file.name}.rejects.jsonl")
            write_rows(place, kept)
            print(f"  the first is row {bad[0]['row']}: {bad[0]['reason']}\n  all of them, with their reasons: {place}")


def _import_file(store: Store, kind: str, file: Path, add_people: bool, batch: str) -> list[dict[str, Any]]:
    """Import one file, say what became of it, and return what was refused."""
    from trivium.files import read_rows
    if kind == "items" and file.suffix.lower() in (".csv", ".tsv", ".xlsx", ".json", ".parquet") and file.is_file():
        from trivium.data.readers import Limits
        from trivium.feedback.uploads import import_file
        brought = import_file(store, file, file.name, limits=Limits(unwrap=True), batch=batch)
        print(f"{file}: {brought.added} added, {brought.known_already} there already, {len(brought.rejects)} refused")
        return [{"file": str(file), **reject} for reject in brought.rejects]
    bad: list[dict[str, Any]] = []
    numbers: list[int] = []
    rows: list[dict[str, Any]] = []

    def refuse(name: str, line: int, reason: str, text: str) -> None:
        bad.append({"file": name, "row": line, "reason": reason, "text": text})

    for number, row in read_rows(file, refuse):
        numbers.append(number)
        rows.append(row)
    outcome: Imported
    if kind == "items":
        outcome = store.add_items({"batch": batch, **row} if batch and isinstance(row, dict) else row for row in rows)
    elif kind == "scores":
        outcome = store.add_scores(rows)
    else:
        outcome = store.add_judgements(rows, add_people)
    bad += [{"file": str(file), **reject, "row": numbers[reject["row"] - 1]} for reject in outcome.rejects]
    print(f"{file}: {outcome.added} added, {outcome.known_already} there already, {len(bad)} refused")
    return sorted(bad, key=lambda row: row["row"])
