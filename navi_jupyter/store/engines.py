"""The engine of a database, by its URL. Each is imported when it is used: the driver of PostgreSQL is an extra."""

from __future__ import annotations

import os

from ..errors import StoreError
from ..settings import Settings, is_postgres
from .database import Database
from .served_owners import ServedOwners


async def open_database(settings: Settings) -> Database:
    """Open it, create or migrate its tables. Raises StoreError and its kinds when it cannot be used."""
    url = settings.database_url
    try:
        served = ServedOwners.of(settings.serves)
    except ValueError as error:
        raise StoreError(f"{error}, not {settings.serves!r}.") from error
    if is_postgres(url):
        refuse_for_single_user()
        try:
            from .postgres.store import PostgresStore  # late: the driver is an extra
        except ImportError as error:
            raise StoreError(
                f"A PostgreSQL database needs the extra `postgres` ({error}): pip install 'navi-jupyter[postgres]'"
            ) from error
        return await PostgresStore.open(url, poll=settings.database_signal == "poll", served=served)
    from .sqlite.location import database_path  # late: as above
    from .sqlite.store import SqliteStore

    return await SqliteStore.open(database_path(url), single_process=settings.database_single_process, served=served)


def refuse_for_single_user() -> None:
    """In a user's own server on a Hub, code of the user reads every setting. Raises StoreError."""
    if os.environ.get("JUPYTERHUB_USER"):
        raise StoreError(
            "database_url names a PostgreSQL database, and this is a JupyterHub user's own server: its notebooks could"
            " read the data of all users. Leave database_url unset there."
        )
