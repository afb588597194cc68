"""The engine of a database, and where the content of its attachments is, by their URLs.

Each is imported when it is used: the driver of PostgreSQL and the client of S3 are extras.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import StoreError
from ..settings import Settings, is_postgres
from .blobs import Blobs
from .database import Database
from .served_owners import ServedOwners

if TYPE_CHECKING:
    from .object_storage import S3Blobs


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


async def open_with_blobs(settings: Settings) -> tuple[Database, Blobs]:
    """As :func:`open_database`, and where the content of attachments goes: to ``blobs_url`` if it is set.

    Raises StoreError, also for a ``blobs_url`` that cannot be used; its store need not answer yet.
    """
    database = await open_database(settings)
    if not settings.blobs_url:
        return database, database.blobs
    try:
        return database, s3_blobs(settings.blobs_url, database=database.identity, earlier=database.blobs)
    except BaseException:
        await database.close()
        raise


def s3_blobs(url: str, *, database: str, earlier: Blobs) -> S3Blobs:
    """As :class:`navi_jupyter.store.object_storage.S3Blobs`. Raises StoreError, also without the extra."""
    if os.environ.get("JUPYTERHUB_USER"):
        raise StoreError(
            "blobs_url names a bucket, and this is a JupyterHub user's own server: its notebooks could read the"
            " attachments of all users, and change them. Leave blobs_url unset there."
        )
    try:
        from .object_storage import S3Blobs  # late: its library is an extra
    except ImportError as error:
        raise StoreError(
            f'Attachments in S3 (blobs_url) need the extra `s3` ({error}): pip install "navi-jupyter[s3]"'
        ) from error
    return S3Blobs(url, database=database, earlier=earlier)


def refuse_for_single_user() -> None:
    """In a user's own server on a Hub, code of the user reads every setting. Raises StoreError."""
    if os.environ.get("JUPYTERHUB_USER"):
        raise StoreError(
            "database_url names a PostgreSQL database, and this is a JupyterHub user's own server: its notebooks could"
            " read the data of all users. Leave database_url unset there."
        )
