"""The server's root as a tree of files that nothing leads out of.

A path is walked one name at a time, each opened relative to the folder before it and never through a symbolic link:
links are read and walked by hand, so one that is swapped in meanwhile cannot lead out either. Where the system has no
such calls (Windows), the same walk is done with whole paths.
Everything here blocks: call it in a thread. Not responsible for what the bytes mean (``files``, ``notebooks``).
"""
# Path has no calls relative to an open folder.
# ruff: noqa: PTH100, PTH102, PTH105, PTH116, PTH117, PTH118

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ...errors import FileConflict, FileRefused, InvalidRequest, NotFound
from ...ports.files import NO_FILE

MAX_LINKS = 40  # symbolic links on one path, as the Linux kernel has it
MAX_PATH = 4096
_BY_DESCRIPTOR = os.open in os.supports_dir_fd and os.scandir in os.supports_fd
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_CHUNK = 1 << 20

Folder = int | str  # an open folder: a descriptor, or its path where the system has no calls relative to descriptors


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedPath:
    """Where a path leads, all links resolved."""

    folder: Folder
    name: str  # in `folder`; `"."` when the path leads to the folder itself
    path: str  # from the root, with `/`, links resolved
    status: os.stat_result | None  # None: there is nothing of that name (yet)

    @property
    def is_folder(self) -> bool:
        """Whether there is a folder."""
        return self.status is not None and stat.S_ISDIR(self.status.st_mode)


def split(path: str) -> list[str]:
    """The names on a path. Raises FileRefused for one that leads out, InvalidRequest for one that no file can have."""
    if len(path) > MAX_PATH or "\0" in path:
        raise InvalidRequest("The path is too long or has a NUL in it.", field="path")
    if os.name == "nt" and any(letter in path for letter in '\\:<>|"?*'):
        raise InvalidRequest("The path has characters that Windows does not allow.", field="path")
    if path.startswith("/"):
        raise FileRefused(f"{path!r} is absolute; paths are relative to the server's folder.", field="path")
    names = [name for name in path.split("/") if name not in ("", ".")]
    if ".." in names:
        raise FileRefused(f"{path!r} has '..' in it, which could lead out of the server's folder.", field="path")
    try:
        os.fsencode(path)
    except UnicodeError:
        raise InvalidRequest("The path is not text that a file name can have.", field="path") from None
    return names


def normal(path: str) -> str:
    """``path`` without empty names and dots."""
    return "/".join(name for name in path.split("/") if name not in ("", "."))


def at(folder: Folder, name: str) -> tuple[str, dict[str, int]]:
    """The arguments with which ``os`` functions reach a name in a folder."""
    if isinstance(folder, int):
        return name, {"dir_fd": folder}
    return os.path.join(folder, name), {}


@contextmanager
def os_errors(path: str) -> Iterator[None]:
    """OSErrors raised within as errors that a user can act on."""
    try:
        yield
    except FileNotFoundError:
        raise NotFound(f"There is no {path or 'root'!s}.", field="path") from None
    except NotADirectoryError:
        raise NotFound(f"There is no {path}: a part of that path is not a folder.", field="path") from None
    except PermissionError:
        raise FileRefused(f"The server may not access {path}.", field="path") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InvalidRequest(f"A name in {path[:80]}… is too long.", field="path") from None
        if error.errno == errno.ELOOP:
            raise FileRefused(f"{path} was replaced by a link meanwhile.", field="path") from None
        raise FileRefused(f"{path}: {error.strerror or error}.", field="path") from None


class Tree:
    """What is below ``root``."""

    def __init__(self, root: str, *, allow_hidden: bool = False) -> None:
        self.root = os.path.realpath(root)
        self.names = tuple({name.rstrip(os.sep) + os.sep for name in (self.root, os.path.abspath(root))})
        """The root as links may name it, each with a slash at its end."""
        self.allow_hidden = allow_hidden

    def shown(self, name: str, status: os.stat_result | None = None) -> bool:
        """Whether a name is not hidden, or hidden ones are allowed."""
        if self.allow_hidden:
            return True
        flags = getattr(status, "st_flags", 0) & getattr(stat, "UF_HIDDEN", 0)
        return not name.startswith(".") and not flags

    @contextmanager
    def place(self, path: str, *, make_folders: bool = False) -> Iterator[ResolvedPath]:
        """Where a path leads; open while the block runs. Raises FileRefused, NotFound, InvalidRequest."""
        names = split(path)
        with os_errors(path):
            walk = _Walk(self, path, names, make_folders=make_folders)
            try:
                yield walk.to_end()
            finally:
                walk.close()

    @contextmanager
    def folder(self, path: str) -> Iterator[Folder]:
        """An open folder. Raises as ``place``, and NotFound when it is something else."""
        with self.place(path) as place, os_errors(path):
            if place.status is None or not place.is_folder:
                raise NotFound(f"There is no folder {path}.", field="path")
            opened = open_folder(place.folder, place.name)
            try:
                yield opened
            finally:
                close(opened)

    @contextmanager
    def file(self, path: str) -> Iterator[tuple[int, os.stat_result]]:
        """A regular file, open for reading. Raises as ``place``, and FileRefused when it is something else."""
        with self.place(path) as place, os_errors(path):
            if place.status is None:
                raise NotFound(f"There is no file {path}.", field="path")
            descriptor, status = open_regular(place.folder, place.name, path, place.status)
            try:
                yield descriptor, status
            finally:
                os.close(descriptor)

    def write(
        self, path: str, content: bytes | bytearray, *, expected_sha256: str | None = None, make_folders: bool = False
    ) -> os.stat_result:
        """Create or replace a file as a whole: at any instant there is the old one or the new one.

        With ``expected_sha256`` (its first eight digits are enough) only if that is its content now, else FileConflict.
        Raises as ``place``, and FileRefused for what is no regular file.
        """
        with self.place(path, make_folders=make_folders) as place, os_errors(path):
            if place.name == "." or place.is_folder:
                raise FileRefused(f"{path} is a folder.", field="path")
            if place.status is not None:
                _check_regular(place.status, path)
                _check_writable(place, path)
            # In the same folder, so that it is on the same file system and can replace the file at once.
            draft = f".~{place.name[:80]}.{secrets.token_hex(6)}"
            try:
                status = _write_draft(place, draft, content)
                _check_expected(place, path, expected_sha256)
                _replace(place, draft)
            except BaseException:
                name, kwargs = at(place.folder, draft)
                with suppress(OSError):
                    os.unlink(name, **kwargs)
                raise
            return status


class _Walk:
    """The walk of one path: the folders that are open, and the names that are left."""

    def __init__(self, tree: Tree, path: str, names: list[str], *, make_folders: bool) -> None:
        self._tree = tree
        self._path = path
        self._names_left = deque(names)
        self._make = make_folders
        self._links = 0
        self._names: list[str] = []
        self._folders: list[Folder] = [os.open(tree.root, _FOLDER) if _BY_DESCRIPTOR else tree.root]

    def close(self) -> None:
        """Close the folders."""
        while self._folders:
            close(self._folders.pop())

    def to_end(self) -> ResolvedPath:
        """Walk all of it."""
        while self._names_left:
            name = self._names_left.popleft()
            if name == "..":
                self._up()
                continue
            found = self._stat(name)
            if found is not None and stat.S_ISLNK(found.st_mode):
                self._follow(name)
            elif not self._names_left:
                return ResolvedPath(
                    folder=self._folders[-1], name=name, path="/".join([*self._names, name]), status=found
                )
            else:
                self._enter(name, found)
        here = self._folders[-1]
        return ResolvedPath(folder=here, name=".", path="/".join(self._names), status=os.stat(here))

    def _stat(self, name: str) -> os.stat_result | None:
        where, kwargs = at(self._folders[-1], name)
        try:
            found = os.stat(where, follow_symlinks=False, **kwargs)
        except FileNotFoundError:
            found = None
        if not self._tree.shown(name, found):
            raise FileRefused(f"{self._path} is hidden, and this server does not show hidden files.", field="path")
        return found

    def _enter(self, name: str, found: os.stat_result | None) -> None:
        if found is None:
            if not self._make:
                raise NotFound(f"There is no folder {'/'.join([*self._names, name])}.", field="path")
            where, kwargs = at(self._folders[-1], name)
            with suppress(FileExistsError):  # made by another client since it was checked
                os.mkdir(where, **kwargs)
        self._folders.append(open_folder(self._folders[-1], name))
        self._names.append(name)

    def _up(self) -> None:
        if len(self._folders) == 1:
            raise self._outside()
        close(self._folders.pop())
        self._names.pop()

    def _follow(self, name: str) -> None:
        self._links += 1
        if self._links > MAX_LINKS:
            raise FileRefused(f"{self._path} has too many links on its way.", field="path")
        where, kwargs = at(self._folders[-1], name)
        target = os.readlink(where, **kwargs)
        if os.path.isabs(target):
            # Its text must begin with the root; what comes after it is walked and checked like any path.
            inside = self._below_root(target)
            while len(self._folders) > 1:
                self._up()
            target = inside
        steps = [step for step in target.replace(os.sep, "/").split("/") if step not in ("", ".")]
        self._names_left.extendleft(reversed(steps))

    def _below_root(self, target: str) -> str:
        for root in self._tree.names:
            if (target + os.sep).startswith(root):
                return target[len(root) :]
        raise self._outside()

    def _outside(self) -> FileRefused:
        return FileRefused(f"{self._path} leads out of the server's folder.", field="path")


def close(folder: Folder) -> None:
    """Close an open folder."""
    if isinstance(folder, int):
        os.close(folder)


def open_folder(folder: Folder, name: str) -> Folder:
    """A folder in a folder. Raises OSError, also when it is a link."""
    where, kwargs = at(folder, name)
    if isinstance(folder, str):
        if not stat.S_ISDIR(os.lstat(where).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return where
    return os.open(where, _FOLDER | _NOFOLLOW, **kwargs)


def open_regular(folder: Folder, name: str, path: str, status: os.stat_result) -> tuple[int, os.stat_result]:
    """A regular file in a folder. ``status`` is checked first: opening a device or a pipe would have an effect."""
    _check_regular(status, path)
    where, kwargs = at(folder, name)
    descriptor = os.open(where, _READ | _NOFOLLOW, **kwargs)
    opened = os.fstat(descriptor)
    try:
        _check_regular(opened, path)  # it may have been replaced since
    except FileRefused:
        os.close(descriptor)
        raise
    return descriptor, opened


def chunks(descriptor: int) -> Iterator[bytes]:
    """The rest of a file."""
    while chunk := os.read(descriptor, _CHUNK):
        yield chunk


def _check_regular(status: os.stat_result, path: str) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    kind = kinds.get(stat.S_IFMT(status.st_mode), "no regular file")
    raise FileRefused(f"{path} is {kind}, not a file.", field="path")


def _check_writable(place: ResolvedPath, path: str) -> None:
    name, kwargs = at(place.folder, place.name)
    if not os.access(name, os.W_OK, dir_fd=kwargs.get("dir_fd")):
        raise FileRefused(f"{path} is read-only.", field="path")


def _write_draft(place: ResolvedPath, draft: str, content: bytes | bytearray) -> os.stat_result:
    name, kwargs = at(place.folder, draft)
    descriptor = os.open(name, _CREATE | _NOFOLLOW, 0o666, **kwargs)
    try:
        if place.status is not None and hasattr(os, "fchmod"):
            with suppress(OSError):  # not the owner: the group stays ours
                os.fchown(descriptor, -1, place.status.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(place.status.st_mode))
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest[:_CHUNK]) :]
        os.fsync(descriptor)
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _check_expected(place: ResolvedPath, path: str, expected: str | None) -> None:
    if expected is None:
        return
    wanted = expected.strip().lower()
    if wanted == NO_FILE:
        if place.status is not None:
            raise FileConflict(f"There is a file {path} now: read it first.", field="path")
        return
    if not 8 <= len(wanted) <= 64:
        raise InvalidRequest("A SHA-256 has 64 hexadecimal digits; the first eight will do.", field="expected_sha256")
    if place.status is None:
        raise FileConflict(f"There is no {path} any more.", field="path")
    descriptor, _ = open_regular(place.folder, place.name, path, place.status)
    digest = hashlib.sha256()
    try:
        for chunk in chunks(descriptor):
            digest.update(chunk)
    finally:
        os.close(descriptor)
    if not digest.hexdigest().startswith(wanted):
        raise FileConflict(f"{path} was changed meanwhile: read it again.", field="path")


def _replace(place: ResolvedPath, draft: str) -> None:
    if isinstance(place.folder, str):
        os.replace(os.path.join(place.folder, draft), os.path.join(place.folder, place.name))
        return
    os.replace(draft, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
    with suppress(OSError):  # some file systems cannot; the rename is done
        os.fsync(place.folder)
