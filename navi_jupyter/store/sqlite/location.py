"""The place of the database: the file that a URL names, what is there, and the file system that it is on.

Nothing is opened, created or changed here. Not responsible for what is in the file (``database_file``).
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ...errors import StoreError

COMPANIONS = ("-wal", "-shm", "-journal")  # what SQLite keeps beside a database
STATE = ".state"  # what ``file_state`` keeps beside it

NETWORK = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afpfs", "afs", "ncpfs", "coda", "webdav", "davfs", "9p", "drvfs"),
        *("lustre", "gpfs", "ceph", "beegfs", "panfs", "orangefs", "pvfs2", "ocfs2", "gfs", "gfs2", "wekafs", "vboxsf"),
        *("vmhgfs", "prl_fs", "acfs", "glusterfs", "moosefs", "daos", "xtreemfs", "quobyte", "juicefs", "sshfs"),
        *("s3fs", "gcsfuse", "rclone", "goofys", "blobfuse", "blobfuse2", "ceph-fuse", "dfuse", "vmhgfs-fuse"),
        *("grpcfuse", "davfs2", "curlftpfs", "smbnetfs", "mfs", "lizardfs"),
    }
)
"""Types of file systems that several machines can have mounted at once: those of the kernel, and after ``fuse.``.

SQLite's write-ahead log needs memory that all its users share, which these do not offer across machines; and several of
them lock only within one machine, so a test from here proves nothing about the others.
"""
_OF_THE_KERNEL = frozenset(
    {
        *("proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs", "configfs"),
        *("pstore", "bpf", "bpffs", "mqueue", "hugetlbfs", "binfmt_misc", "efivarfs", "nsfs", "selinuxfs"),
    }
)
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a link",
}
_LIKE = "database_url must be like sqlite:////home/me/navi.db"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # at least two letters: C: is a drive
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def database_path(url: str) -> Path:
    """The file of a ``sqlite:///`` URL, or a plain path. Raises StoreError for everything else.

    The error does not repeat what comes after the scheme: it may contain a password.
    """
    text = url
    if "://" in url:
        parts = urlsplit(url)
        if parts.scheme not in ("sqlite", "sqlite+aiosqlite"):
            raise StoreError(f"{_LIKE}; it is {_shown(parts.scheme)}://…, which is no SQLite file.")
        if parts.netloc or not parts.path.strip("/"):
            raise StoreError(f"{_LIKE}; it names no file, or one on another machine.")
        if parts.query or parts.fragment:
            raise StoreError(f"{_LIKE}; nothing can follow the file (write a ? in its name as %3F, a # as %23).")
        # As SQLAlchemy reads it: three slashes before a relative path, four before an absolute one.
        text = unquote(parts.path[1:])
    elif _SCHEME.match(url):
        raise StoreError(f"{_LIKE}; it is {_shown(url.partition(':')[0])}:…, which is no path of a file.")
    if text.strip() in ("", ":memory:") or text.strip().startswith("file:"):
        raise StoreError(f"{_LIKE}; it names no file. What Navi keeps must outlive the server, so it is kept in one.")
    if _CONTROL.search(text):
        raise StoreError(f"{_LIKE}; the name of the file has a control character.")
    if text.endswith(("/", os.sep)):
        raise StoreError(f"{_LIKE}; it ends with a slash, as a folder does. Add the name of the file.")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise StoreError(f"{_LIKE}; {error}") from None


def attachments_folder(path: Path) -> Path:
    """Where the attachments of the database ``path`` are."""
    return path.parent / f"{path.stem}-attachments"


def _shown(scheme: str) -> str:
    return scheme[:20]


def check_place(path: Path) -> None:
    """Refuse what can be no database before anything is opened or changed: a device, a pipe, a folder, ``/proc``.

    Raises StoreError. Opening a device or a pipe would already have an effect, or never end.
    """
    place = real_path(path)
    if not place.name:
        raise StoreError(f"The database cannot be {path}: that is a folder. {_ELSEWHERE}")
    for name in (Path(os.path.abspath(path)), place):  # noqa: PTH100 - /proc/self/fd/1 is no file, wherever it leads to
        found = _mounted_at(name)
        if (found is not None and found.type in _OF_THE_KERNEL) or _below_dev(name):
            raise StoreError(f"The database cannot be {path}: {name.parent} is for devices and processes. {_ELSEWHERE}")
    for companion in ("", *COMPANIONS, STATE):
        name = place.with_name(place.name + companion)
        try:
            mode = name.lstat().st_mode
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StoreError(f"The database {path} cannot be opened ({error.strerror}).") from error
        if not stat.S_ISREG(mode):
            kind = kind_of(mode)
            raise StoreError(f"The database {path} cannot be opened: {name} is {kind}, not a file. {_ELSEWHERE}")


def real_path(path: Path) -> Path:
    """``path`` without links, as SQLite names its companions. Raises StoreError for links that lead to themselves."""
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # a RuntimeError before Python 3.13
        raise StoreError(f"The database {path} cannot be opened ({error}).") from error


_ELSEWHERE = "Nothing was changed. Set NaviExtension.database_url to a file."


def kind_of(mode: int) -> str:
    """What an ``st_mode`` that is no regular file stands for, in words."""
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def _below_dev(place: Path) -> bool:
    """In containers ``/dev`` is often a memory file system; what is in ``/dev/shm`` are files."""
    return place.parts[1:2] == ("dev",) and place.parts[2:3] != ("shm",)


@dataclass(frozen=True, slots=True)
class FileSystem:
    """A mounted file system."""

    type: str  # as the kernel calls it: ``ext4``, ``nfs4``, ``fuse.sshfs``
    mount_point: str

    @property
    def network(self) -> bool:
        """Whether other machines can have it mounted, too."""
        kind = self.type.lower()
        return kind in NETWORK or kind.removeprefix("fuse.") in NETWORK


def file_system_of(path: Path) -> FileSystem | None:
    """The file system that holds ``path``, which need not exist. None where the system does not say."""
    return _mounted_at(path.resolve())


def _mounted_at(path: Path) -> FileSystem | None:
    try:
        mounts = mounts_of(Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:
        import psutil  # late: 15 ms, and only other systems need it

        try:
            mounts = [FileSystem(each.fstype, each.mountpoint) for each in psutil.disk_partitions(all=True)]
        except (OSError, RuntimeError, psutil.Error):
            return None
    return mounted_at(path, mounts)


def mounts_of(mountinfo: str) -> list[FileSystem]:
    """The lines of ``/proc/self/mountinfo``, in their order; one that cannot be read is passed over."""
    found = []
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")[0]
        if separator and kind and len(fields) >= 5:
            found.append(FileSystem(kind, _unescaped(fields[4])))
    return found


def _unescaped(name: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), name)


def mounted_at(path: Path, mounts: list[FileSystem]) -> FileSystem | None:
    """The one of ``mounts`` that an absolute path is on: the longest mount point, and of equal ones the last."""
    best: FileSystem | None = None
    for mount in mounts:
        inside = path.is_relative_to(mount.mount_point)
        if inside and (best is None or len(mount.mount_point.rstrip("/")) >= len(best.mount_point.rstrip("/"))):
            best = mount
    return best
