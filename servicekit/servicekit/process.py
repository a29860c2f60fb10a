"""What a service's command line does: provision, migrate, serve, rotate-master-key, replay-erasures.

A command loads what it alone needs when it runs: Alembic would take a seventh of the time in which a service starts.
"""

import argparse
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path

import uvloop
from pydantic import ValidationError
from sqlalchemy import Table

from servicekit.crypto import KeyRing
from servicekit.data_keys import DataKeys
from servicekit.gc_tuning import freeze_startup_objects
from servicekit.logs import configure_logs
from servicekit.settings import (
    OwnerSettings,
    ProvisioningSettings,
    RotationSettings,
    SettingUnreadable,
    complaints,
)


def run(
    service: str,
    data_keys: Table,
    serve: Callable[[], Coroutine[None, None, None]],
    replay_erasures: Callable[[Path], Coroutine[None, None, None]] | None = None,
) -> None:
    """Do what the command line asks, by default serve; settings that are missing or wrong are told in one line each.

    `replay_erasures` is given by services that hold personal data.
    """
    freeze_startup_objects()
    parser = argparse.ArgumentParser(prog=f"python -m {service}")
    parser.set_defaults(do=lambda _: uvloop.run(serve()))
    commands = parser.add_subparsers(metavar="command")

    def add(name: str, do: Callable[[argparse.Namespace], None], explanation: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=explanation)
        command.set_defaults(do=do)
        return command

    add("serve", lambda _: uvloop.run(serve()), "answer calls until told to stop")
    add("provision", lambda _: _provision(service), "make the database and its roles")
    add("migrate", lambda _: _migrate(service), "bring the database to the newest schema")
    add("rotate-master-key", lambda _: _rotate_master_key(data_keys), "wrap all data keys with the first master key")
    if replay_erasures is not None:
        replay = add(
            "replay-erasures",
            lambda arguments: uvloop.run(replay_erasures(arguments.file)),
            "erase again, in a database from a backup, who was erased since",
        )
        replay.add_argument("file", type=_existing_file, help="the list that identity keeps")
    arguments = parser.parse_args()
    try:
        arguments.do(arguments)
    except ValidationError as error:
        sys.exit(complaints(error))
    except SettingUnreadable as error:
        sys.exit(str(error))


def _existing_file(path: str) -> Path:
    # To be without a list is no reason to believe that nobody was erased.
    if not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {path}")
    return Path(path)


def _provision(service: str) -> None:
    from servicekit.provisioning import provision

    settings = ProvisioningSettings()
    provision(
        service,
        settings.database_superuser_dsn.get_secret_value(),
        settings.database_owner_dsn.get_secret_value(),
        settings.database_runtime_dsn.get_secret_value(),
    )


def _migrate(service: str) -> None:
    from servicekit import migrations

    configure_logs("INFO", for_people=True)
    migrations.upgrade(service, OwnerSettings().database_owner_dsn.get_secret_value())


def _rotate_master_key(data_keys: Table) -> None:
    from servicekit import migrations

    settings = RotationSettings()
    keys = DataKeys(data_keys, KeyRing.parse(settings.master_keys.get_secret_value()))
    engine = migrations.owner_engine(settings.database_owner_dsn.get_secret_value())
    count = keys.rewrap(
        engine, progress=lambda done, total: print(f"{done} of {total} data keys re-wrapped", flush=True)
    )
    print(f"done: {count} data keys re-wrapped")
