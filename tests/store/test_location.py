"""Where a database can be: in a file, on a file system that locks; what cannot be one is refused and not changed."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from navi_jupyter.errors import StoreError, StoreForeign, StoreLocked
from navi_jupyter.store.sqlite import database_file, locking
from navi_jupyter.store.sqlite.location import FileSystem, database_path, file_system_of, mounted_at, mounts_of
from navi_jupyter.store.sqlite.store import SqliteStore
from tests.support.database import on_sqlite

pytestmark = on_sqlite

ROOT = Path(__file__).resolve().parents[2]

State = dict[str, tuple[int, int, int, bytes | str]]


def state_of(folder: Path) -> State:
    """Everything below a folder: mode, owner, inode and content."""
    found: State = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content: bytes | str = b""
        if stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)  # noqa: PTH115
        elif stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        found[str(path)] = (status.st_mode, status.st_uid, status.st_ino, content)
    return found


# --- URLs


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        ":memory:",
        "sqlite://",
        "sqlite:///",
        "sqlite:////",
        "sqlite:///:memory:",
        "sqlite:///%3Amemory%3A",
        "sqlite:///%00",
        "sqlite:////tmp/a%00b.db",
        "/tmp/a\nb.db",
        "sqlite:////tmp/folder/",
        "sqlite:////tmp/navi.db?mode=memory",
        "sqlite:////tmp/navi.db#x",
        "sqlite://host/tmp/navi.db",
        "file:navi.db?mode=memory",
        "file:///tmp/navi.db",
        "sqlite:///file:navi.db?mode=memory",
        "sqlite:/tmp/navi.db",
        "postgresql://ann:secret@host/db",
        "postgresql+asyncpg:ann:secret@host",
        "mysql://ann:secret@host/db",
        "http://ann:secret@host/",
        "~nobody-of-this-name-here/navi.db",
    ],
)
def test_a_url_that_names_no_file_is_refused_without_repeating_a_password(url: str) -> None:
    with pytest.raises(StoreError, match="database_url must be like") as refused:
        database_path(url)
    assert "secret" not in refused.value.message


# --- what is no file


def a_folder(path: Path) -> None:
    path.mkdir()


def a_pipe(path: Path) -> None:
    os.mkfifo(path, 0o644)


def a_socket(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as made:
        made.bind(str(path))


def a_device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))  # as /dev/null, which must not be harmed by a test
    except PermissionError:
        pytest.skip("only an administrator can make a device")


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


MAKERS = [a_folder, a_pipe, a_socket, a_device, a_link_to_itself]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("linked", [False, True])
async def test_what_is_no_file_is_refused_before_anything_is_changed(
    tmp_path: Path, make: Callable[[Path], None], linked: bool
) -> None:
    make(tmp_path / "special")
    path = tmp_path / "special"
    if linked:
        path = tmp_path / "navi.db"
        path.symlink_to("special")
    before = state_of(tmp_path)
    with pytest.raises(StoreError, match="cannot be"):
        await asyncio.wait_for(SqliteStore.open(path), 20)
    assert state_of(tmp_path) == before


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("companion", ["-wal", "-shm", "-journal", ".state"])
async def test_a_companion_that_is_no_file_is_refused_before_anything_is_changed(
    tmp_path: Path, make: Callable[[Path], None], companion: str
) -> None:
    make(tmp_path / f"navi.db{companion}")
    before = state_of(tmp_path)
    with pytest.raises(StoreError, match="not a file"):
        await asyncio.wait_for(SqliteStore.open(tmp_path / "navi.db"), 20)
    assert state_of(tmp_path) == before


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's places")
@pytest.mark.parametrize(
    "place",
    [
        *("/dev/null", "/dev/zero", "/dev/full", "/dev/navi.db", "/dev/fd/0", "/dev/stdin", "/dev", "/"),
        *("/proc/self/mem", "/proc/navi.db", "/proc/self/fd/0", "/proc/self/cwd/none.db", "/sys/navi.db"),
    ],
)
async def test_places_of_the_kernel_are_refused_before_anything_is_changed(place: str) -> None:
    path = Path(place)
    before = os.stat(place) if path.exists() else None  # noqa: PTH116
    with pytest.raises(StoreError):
        await asyncio.wait_for(SqliteStore.open(path), 20)
    assert not path.exists() if before is None else path.stat()[:6] == before[:6]


# --- files of others


def text(path: Path) -> None:
    path.write_text("Dear diary\n" * 1000)


def picture(path: Path) -> None:
    path.write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(range(256)) * 30)


def one_byte(path: Path) -> None:
    path.write_bytes(b"x")


def another_programs_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE history (line)")
        db.commit()


def another_programs_database_that_is_cut(path: Path) -> None:
    another_programs_database(path)
    os.truncate(path, 5000)


def another_programs_database_in_use(path: Path) -> None:
    """Killed in mid-work: what it has committed last is in its write-ahead log."""
    code = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('PRAGMA journal_mode = WAL')\n"
        "db.execute('CREATE TABLE history (line)'); db.commit(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert path.with_name(f"{path.name}-wal").stat().st_size


def another_application(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA application_id = 1234")
        db.commit()


@pytest.mark.parametrize(
    "make",
    [
        text,
        picture,
        one_byte,
        another_programs_database,
        another_programs_database_that_is_cut,
        another_programs_database_in_use,
        another_application,
    ],
)
async def test_a_file_of_somebody_else_is_refused_and_not_touched(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "navi.db"
    make(path)
    path.chmod(0o644)
    before = state_of(tmp_path)
    for _ in range(2):
        with pytest.raises(StoreForeign, match="Nothing was changed"):
            await SqliteStore.open(path)
        assert state_of(tmp_path) == before


# --- locks


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A library that gives file systems a fault, built for one fault."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler, to make a file system that does not lock")
    folder = tmp_path_factory.mktemp("faulty")

    def build(fault: str) -> Path:
        built = folder / f"{fault}.so"
        source = ROOT / "tests" / "support" / "faulty_files.c"
        command = [compiler, f"-D{fault}", "-shared", "-fPIC", "-O1", "-o", str(built), str(source), "-ldl"]
        subprocess.run(command, check=True)
        return built

    return build


_OPEN = (
    "import asyncio, os, sys; from pathlib import Path; from navi_jupyter.errors import NaviError\n"
    "from navi_jupyter.store.sqlite.store import SqliteStore\n"
    "async def main():\n"
    "    store = await SqliteStore.open(Path(sys.argv[1]))\n"
    "    await store.close()\n"
    "if 'FIRST' in os.environ:\n    os.environ['FIRST'] = str(os.getpid())\n"
    "try:\n    asyncio.run(main()); print('opened')\n"
    "except NaviError as error:\n    print(error.code, error.message)"
)


def opened_with(path: Path, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _OPEN, str(path)],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=60,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("NO_LOCKS", "does not lock files"),
        ("NO_SHARING", "does not show one process what another wrote"),
        ("REFUSED_LOCKS", "refuses locks"),
        ("ONE_PROCESS", "lets no second process use a file"),
    ],
)
def test_a_file_system_on_which_processes_do_not_exclude_or_see_each_other_is_refused(
    tmp_path: Path, library: Callable[[str], Path], fault: str, said: str
) -> None:
    path = tmp_path / "navi.db"
    assert opened_with(path) == "opened"
    before = state_of(tmp_path)
    more = {"FIRST": ""} if fault == "ONE_PROCESS" else {}
    answer = opened_with(path, LD_PRELOAD=str(library(fault)), **more)
    assert answer.startswith("store_locking_unsupported")
    assert said in answer
    assert "NAVI_DATABASE_URL" in answer
    assert state_of(tmp_path) == before


async def test_where_no_second_process_can_be_started_the_log_says_so_and_the_database_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locking.sys, "executable", "/no/such/python")
    store = await SqliteStore.open(tmp_path / "navi.db")
    await store.close()
    assert "store_locking_not_checked" in caplog.text


async def test_a_second_process_that_hangs_holds_the_start_up_for_a_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locking, "PATIENCE", 0.5)
    monkeypatch.setattr(locking, "_SECOND", "import time; time.sleep(600)")
    store = await asyncio.wait_for(SqliteStore.open(tmp_path / "navi.db"), 30)
    await store.close()
    assert "store_locking_not_checked" in caplog.text


async def test_the_check_of_locks_leaves_nothing(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "navi.db")
    await store.close()
    assert {path.name for path in tmp_path.iterdir()} <= {"navi.db", "navi.db.state"}


# --- file systems

MOUNTS = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /home rw,relatime shared:12 - nfs4 filer:/home rw,vers=4.2,local_lock=none
31 30 0:26 / /home/ann/local\040disk rw - xfs /dev/nvme0n1 rw
32 22 0:27 / /scratch rw - lustre mds@tcp:/scratch rw,flock
33 22 0:28 / /gpfs/project rw master:2 propagate_from:1 - gpfs project rw
34 22 0:29 / /mnt/ssh rw - fuse.sshfs ann@host: rw
35 22 0:30 / /mnt/merged rw - fuse.mergerfs a:b rw
36 22 0:31 / /over rw - overlay overlay rw,lowerdir=/a
37 22 0:32 / /win rw - cifs //server/share rw
38 22 0:33 / /win rw - ext4 /dev/sdb1 rw
39 22 0:34 / /ceph rw - ceph 10.0.0.1:/ rw
40 22 0:35 / /homeless rw - zfs pool rw
a line that cannot be read
"""


@pytest.mark.parametrize(
    ("path", "kind", "network"),
    [
        ("/var/lib/navi.db", "ext4", False),
        ("/home/ann/navi.db", "nfs4", True),
        ("/home", "nfs4", True),
        ("/home/ann/local disk/navi.db", "xfs", False),
        ("/homeless/navi.db", "zfs", False),
        ("/scratch/ann/navi.db", "lustre", True),
        ("/gpfs/project/navi.db", "gpfs", True),
        ("/gpfs/navi.db", "ext4", False),
        ("/mnt/ssh/navi.db", "fuse.sshfs", True),
        ("/mnt/merged/navi.db", "fuse.mergerfs", False),
        ("/over/navi.db", "overlay", False),
        ("/win/navi.db", "ext4", False),  # what was mounted last is what is there
        ("/ceph/navi.db", "ceph", True),
    ],
)
def test_the_file_system_of_a_path_is_that_of_the_longest_mount_point(path: str, kind: str, network: bool) -> None:
    found = mounted_at(Path(path), mounts_of(MOUNTS))
    assert found is not None
    assert (found.type, found.network) == (kind, network)


@pytest.mark.parametrize(
    "kind",
    [
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "ceph", "fuse.ceph", "fuse.sshfs", "9p", "afs"),
        *("fuse.glusterfs", "beegfs", "panfs", "fuse.rclone", "fuse.s3fs", "fuse.juicefs", "fuse.gcsfuse"),
    ],
)
def test_file_systems_that_several_machines_share_are_known(kind: str) -> None:
    assert FileSystem(kind, "/").network


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "overlay", "tmpfs", "f2fs", "apfs", "NTFS", "fuseblk"])
def test_file_systems_of_one_machine_are_not_taken_for_shared_ones(kind: str) -> None:
    assert not FileSystem(kind, "/").network


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="needs Linux's table of mounts")
def test_the_kernels_table_of_mounts_is_read() -> None:
    proc = file_system_of(Path("/proc/self/none"))
    assert proc == FileSystem("proc", "/proc")
    if Path("/dev/shm").is_mount():
        memory = file_system_of(Path("/dev/shm/a/b"))
        assert memory == FileSystem("tmpfs", "/dev/shm")


async def test_a_network_file_system_is_refused_with_what_to_do_unless_one_process_is_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mount is played: the tests cannot mount one. What is then done to the file is real."""
    path = tmp_path / "folder" / "navi.db"
    monkeypatch.setattr(database_file, "file_system_of", lambda _: FileSystem("nfs4", "/home"))
    with pytest.raises(StoreLocked, match=r"nfs4 at /home.*NAVI_DATABASE_URL.*NAVI_DATABASE_SINGLE_PROCESS"):
        await SqliteStore.open(path)
    assert not path.parent.exists()
    store = await SqliteStore.open(path, single_process=True)
    assert (await store.fetch_all("PRAGMA journal_mode"))[0][0] == "delete"
    assert store._commits is None, "a look for commits of others is a request to the file server, from the event loop"
    assert not await store.changed_elsewhere()
    assert not path.with_name("navi.db-wal").exists()
    assert not path.with_name("navi.db-shm").exists()
    await store.close()
