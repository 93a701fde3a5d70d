"""The demo's command line: start the reference system, send customers, check what they got, stop it."""

from __future__ import annotations

import argparse
import contextlib
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import httpx
from rich.console import Console

from demo import home, photos, report, system
from demo.audit import Audit, audit
from demo.children import Children, DemoError
from demo.customers import Customers, Visit, orders, post_bad_orders, progress_bar, upload_photos
from demo.patterns import Lesson, Lessons
from demo.progress import RunProgress
from demo.settings import DEFAULT_HOME, ShopSettings

API_TIMEOUT = 30.0
"""Seconds."""

console = Console(highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return its exit status: 0 when nothing is missing.

    Raises:
        DemoError: it could not go on.
    """
    options = _parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit)
    with (
        home.open_home(options.output),
        _running_system(options) as (shop, running),
        httpx.Client(base_url=running.url, timeout=API_TIMEOUT) as client,
    ):
        _print_system(shop, running)
        status = _day_at_the_shop(options, shop, running, client) if options.orders else 0
        if options.serve:
            _serve(running)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="A print shop on Celeriac: an API, an image pool, an email pool, a mail server that fails now"
        " and then, a worker slot that is killed, and a table of what came of it.",
    )
    parser.add_argument(
        "--orders", type=_count, default=300, metavar="N", help="how many orders to post (default: 300)"
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="use your own photos instead of painted ones")
    parser.add_argument(
        "--output",
        type=_absolute,
        default=DEFAULT_HOME.absolute(),
        metavar="DIR",
        help="where everything goes (default: ./demo-output)",
    )
    parser.add_argument("--broker", metavar="URL", help="for example redis://localhost:6379/0 (default: a SQLite file)")
    parser.add_argument("--backend", metavar="URL", help="where results go (default: where the broker is)")
    parser.add_argument(
        "--calm", action="store_true", help="leave out what goes wrong on purpose when the orders are through"
    )
    parser.add_argument("--serve", action="store_true", help="keep it running at the end, until Ctrl-C")
    parser.add_argument(
        "--seed",
        type=int,
        default=1,
        metavar="N",
        help="another seed gives other photos, orders and mail failures (default: 1)",
    )
    parser.add_argument("--port", type=int, default=0, metavar="N", help="of the API (default: any free one)")
    return parser


def _count(text: str) -> int:
    count = int(text)
    if not 0 <= count <= 99_999:
        raise argparse.ArgumentTypeError("must be between 0 and 99999")
    return count


def _absolute(text: str) -> Path:
    return Path(text).absolute()


def _exit(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


# -- start and stop ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _running_system(options: argparse.Namespace) -> Iterator[tuple[ShopSettings, system.System]]:
    with system.listen(options.port, "API") as api, system.listen(0, "mail server") as mail:
        shop = _shop_settings(options, mail.getsockname()[1])
        for url in (shop.broker, shop.backend):
            system.check_reachable(url)
        home.clear(shop)
        shop.save()
        children = Children(shop.logs, system.environment(shop))
        try:
            with console.status("Starting the API, the mail server and two pools of workers…"):
                running = system.start(children, api, mail, options.seed, metrics=options.serve)
                system.wait_ready(running)
            yield shop, running
        finally:
            children.stop()


def _shop_settings(options: argparse.Namespace, smtp_port: int) -> ShopSettings:
    embedded = f"sqlite:///{options.output}/shop.sqlite3"
    broker = options.broker or embedded
    return ShopSettings(
        home=options.output,
        broker=broker,
        backend=options.backend or (broker if broker.startswith(("redis", "sqlite", "postgres")) else embedded),
        key_prefix=f"print-shop-demo-{time.time_ns()}:",
        smtp_host=system.HOST,
        smtp_port=smtp_port,
    )


def _print_system(shop: ShopSettings, running: system.System) -> None:
    console.print("[bold]The print shop is open.[/]")
    console.print(f"  API         {running.url}   (try {running.url}/docs)")
    console.print(f"  broker      {_without_password(shop.broker)}", soft_wrap=True)
    console.print(f"  results     {_without_password(shop.backend)}", soft_wrap=True)
    console.print(f"  mail server {shop.smtp_host}:{shop.smtp_port}, which refuses some mails for the moment")
    for name, command in zip(("image pool", "email pool"), running.pools, strict=True):
        console.print(f"  {name}  {command}", soft_wrap=True)
    console.print()


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    user, at, place = rest.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}{':**' if ':' in user else ''}{at}{place}"


def _serve(running: system.System) -> None:
    console.print(
        f"\nStill open: {running.url} (orders), {running.url}/docs (the API). Ctrl-C closes it.", soft_wrap=True
    )
    for url in running.metrics:
        console.print(f"Metrics: {url}", soft_wrap=True)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            running.children.check()
            time.sleep(0.5)


# -- the run -------------------------------------------------------------------------------------------------------


def _day_at_the_shop(
    options: argparse.Namespace, shop: ShopSettings, running: system.System, client: httpx.Client
) -> int:
    names = _upload(options, client)
    refused = _show_validation(client, names[0])
    progress = RunProgress(shop.journal)
    with progress_bar() as bar:
        visit = Customers(running, client, progress, bar).run(
            orders(options.seed, options.orders, names), options.orders
        )
    if not options.calm:
        with console.status("Making things go wrong on purpose…"):
            first = next(orders(options.seed, 1, names))
            visit.lessons = [refused, *Lessons(shop, running, client, progress).run(first)]
    with console.status("Opening every picture, reading every mail…"):
        found = audit(shop, client, visit.posted)
    return _conclude(options.orders, shop, progress, visit, found)


def _upload(options: argparse.Namespace, client: httpx.Client) -> list[str]:
    paths = _own(options.images) if options.images else _painted(options)
    names = []
    for path, name, reason in upload_photos(client, paths):
        if name:
            names.append(name)
        else:
            console.print(f"  [yellow]skipped[/] {path.name}: {reason}", soft_wrap=True)
    if not names:
        raise DemoError(f"No photo in {options.images} could be used.")
    console.print(f"  {len(names)} photos uploaded.")
    return names


def _painted(options: argparse.Namespace) -> Iterator[Path]:
    with progress_bar() as bar:
        bar_row = bar.add_task("photos", total=photos.COUNT)
        for path in photos.painted_photos(options.output / "photos", options.seed):
            bar.advance(bar_row)
            yield path


def _own(folder: Path) -> list[Path]:
    try:
        return photos.own_photos(folder)
    except OSError as error:
        raise DemoError(f"Cannot read the photos in {folder}: {error}") from error


def _show_validation(client: httpx.Client, photo: str) -> Lesson:
    reasons = []
    for status, reason in post_bad_orders(client, photo):
        if status != httpx.codes.UNPROCESSABLE_ENTITY:
            raise DemoError(f"The API should have refused a bad order, and answered {status}.")
        console.print(f"  [dim]A bad order was refused with {status}: {reason}[/]", soft_wrap=True)
        reasons.append(reason)
    return Lesson("refused", str(len(reasons)), f"bad orders, with 422 and the fields: {reasons[0]}")


def _conclude(count: int, shop: ShopSettings, progress: RunProgress, visit: Visit, found: Audit) -> int:
    console.print()
    console.print(report.results_table(progress, visit, found, _lines(shop.refused_mails)))
    report.print_places(console, shop)
    lines = report.problems(count, progress, visit, found)
    if lines:
        console.print("\n[bold red]Something is missing.[/]")
        report.print_problems(console, lines)
        console.print(f"\nWhat was given up, and why: {report.dead_letters_command(shop)}", soft_wrap=True)
        return 1
    console.print("\n[bold green]Every order has its pictures, its receipt and its mail.[/]")
    return 0


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0
