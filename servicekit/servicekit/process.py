"""What a service's command line does: provision, migrate, serve, rotate-master-key."""

import argparse
import sys
from collections.abc import Callable, Coroutine

import uvloop
from pydantic import ValidationError
from sqlalchemy import Table

from servicekit import migrations
from servicekit.crypto import KeyRing
from servicekit.data_keys import DataKeys
from servicekit.logs import configure_logs
from servicekit.provisioning import provision
from servicekit.settings import OwnerSettings, ProvisioningSettings, RotationSettings


def run(service: str, data_keys: Table, serve: Callable[[], Coroutine[None, None, None]]) -> None:
    """Do what the command line asks; settings that are missing or wrong are told in one line each."""
    commands: dict[str, Callable[[], None]] = {
        "serve": lambda: _serve(serve),
        "provision": lambda: _provision(service),
        "migrate": lambda: _migrate(service),
        "rotate-master-key": lambda: _rotate_master_key(data_keys),
    }
    parser = argparse.ArgumentParser(prog=f"python -m {service}")
    parser.add_argument("command", nargs="?", default="serve", choices=commands)
    command = commands[parser.parse_args().command]
    try:
        command()
    except ValidationError as error:
        sys.exit("\n".join(f"AAROKYA_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()))


def _serve(serve: Callable[[], Coroutine[None, None, None]]) -> None:
    uvloop.run(serve())


def _provision(service: str) -> None:
    settings = ProvisioningSettings()
    provision(
        service,
        settings.database_superuser_dsn.get_secret_value(),
        settings.database_owner_dsn.get_secret_value(),
        settings.database_runtime_dsn.get_secret_value(),
    )


def _migrate(service: str) -> None:
    configure_logs("INFO", for_people=True)
    migrations.upgrade(service, OwnerSettings().database_owner_dsn.get_secret_value())


def _rotate_master_key(data_keys: Table) -> None:
    settings = RotationSettings()
    keys = DataKeys(data_keys, KeyRing.parse(settings.master_keys.get_secret_value()))
    engine = migrations.owner_engine(settings.database_owner_dsn.get_secret_value())
    count = keys.rewrap(
        engine, progress=lambda done, total: print(f"{done} of {total} data keys re-wrapped", flush=True)
    )
    print(f"done: {count} data keys re-wrapped")
