"""Files are either the old one or the complete new one; locks of folders."""

import errno
import os
import subprocess
import sys
from collections import namedtuple

import pytest

from fewseg.ops import files
from fewseg.ops.files import (
    atomic_path,
    atomic_write_bytes,
    atomic_write_text,
    check_writable,
    folder_alone,
    lock,
    temporary_folder,
)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_text_is_written_as_it_is_and_missing_folders_are_made(tmp_path):
    target = tmp_path / "a" / "b" / "page.md"
    atomic_write_text(target, "é\r\nx\n")
    assert target.read_bytes() == b"\xc3\xa9\r\nx\n"
    assert names(target.parent) == ["page.md"]


def test_the_temporary_file_lies_in_the_same_folder_with_the_same_suffix(tmp_path):
    with atomic_path(tmp_path / "counts.npz") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".npz"
        assert temporary.name != "counts.npz"
        temporary.write_bytes(b"1")
        assert not (tmp_path / "counts.npz").exists()


def test_two_writers_of_one_file_have_different_temporary_files(tmp_path):
    with atomic_path(tmp_path / "x") as first, atomic_path(tmp_path / "x") as second:
        assert first != second
        first.write_bytes(b"1")
        second.write_bytes(b"2")
    assert (tmp_path / "x").read_bytes() == b"1"


@pytest.mark.parametrize("failure", [RuntimeError("boom"), KeyboardInterrupt()])
def test_a_failure_or_interrupt_keeps_the_old_file_and_leaves_nothing_else(tmp_path, failure):
    target = tmp_path / "x.bin"
    target.write_bytes(b"old")

    def write():
        with atomic_path(target) as temporary:
            temporary.write_bytes(b"half")
            raise failure

    with pytest.raises(type(failure)):
        write()
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["x.bin"]


def test_a_full_disk_keeps_the_old_file_and_says_path_and_free_space(tmp_path, monkeypatch):
    target = tmp_path / "x.bin"
    target.write_bytes(b"old")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match=r"could not write .*x\.bin: No space left on device \(\d+ MiB free"
    ) as caught:
        atomic_write_bytes(target, b"new")
    assert caught.value.errno == errno.ENOSPC
    assert "the earlier file is unchanged" in str(caught.value)
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["x.bin"]


def test_a_writer_that_hides_the_full_disk_is_still_reported_as_one(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: usage(2**40, 2**40, 3 * 2**20))
    expected = r"stream failed \(3 MiB free there\); nothing was left behind"
    with pytest.raises(OSError, match=expected) as caught, atomic_path(tmp_path / "x.pt"):
        raise RuntimeError("stream failed")
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_without_permission_is_no_question_of_space(tmp_path, monkeypatch, number):
    def closed(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", closed)
    with pytest.raises(OSError, match="Make it writable or choose another output folder") as caught:
        atomic_write_bytes(tmp_path / "x.bin", b"new")
    assert "space" not in str(caught.value)
    assert names(tmp_path) == []


@pytest.mark.parametrize("write", [check_writable, lambda path: atomic_write_bytes(path, b"1")])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("taken/x.bin", "taken is a file; choose another"),
        ("taken/below/x.bin", "taken is a file; choose another"),
        ("there", "there: it is a folder; give the name of a file in it"),
    ],
)
def test_a_file_in_place_of_a_folder_or_the_reverse_is_no_question_of_space(tmp_path, write, name, message):
    (tmp_path / "taken").write_bytes(b"")
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError, match=rf"could not write .*{message}") as caught:
        write(tmp_path / name)
    assert "space" not in str(caught.value)
    assert names(tmp_path) == ["taken", "there"]


def test_what_can_be_written_is_reported_without_making_anything(tmp_path, monkeypatch):
    check_writable(tmp_path / "a/b/c.bin")
    check_writable(tmp_path / "c.bin")
    assert names(tmp_path) == []
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(
        PermissionError, match=r"could not write .*c\.bin: Permission denied.*Make it writable"
    ):
        check_writable(tmp_path / "a/b/c.bin")


def test_the_file_is_flushed_before_it_takes_its_name(tmp_path, monkeypatch):
    target, seen = tmp_path / "x.bin", []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (seen.append(target.exists()), real(handle))[1])
    atomic_write_bytes(target, b"1")
    assert seen[0] is False
    assert seen[-1] is True
    assert len(seen) == 2


@pytest.mark.parametrize("name", ["x" * 251 + ".png", "é" * 125 + ".png"])
def test_a_name_as_long_as_the_file_system_takes_is_written(tmp_path, name):
    atomic_write_bytes(tmp_path / name, b"1")
    assert names(tmp_path) == [name]


def test_one_at_a_time_is_alone_in_a_folder(tmp_path):
    with folder_alone(tmp_path) as first:
        with folder_alone(tmp_path) as second:
            assert (first, second) == (True, False)
        ask = (
            "import sys; from pathlib import Path; from fewseg.ops.files import folder_alone\n"
            "with folder_alone(Path(sys.argv[1])) as alone: sys.exit(alone)"
        )
        assert subprocess.run([sys.executable, "-c", ask, str(tmp_path)], check=False).returncode == 0
    with folder_alone(tmp_path) as third:
        assert third
    assert not list(tmp_path.iterdir())


def test_shared_locks_stand_beside_each_other_and_keep_the_other_kind_out(tmp_path):
    handles = [os.open(tmp_path, os.O_RDONLY) for _ in range(3)]
    assert lock(handles[0], shared=True, wait=False)
    assert lock(handles[1], shared=True, wait=False)
    assert not lock(handles[2], wait=False)
    os.close(handles[0])
    os.close(handles[1])
    assert lock(handles[2], wait=False)
    os.close(handles[2])


KILLED = """
import os, signal, sys
from fewseg.ops.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
LIVE = """
import platform, sys
from fewseg.ops.files import atomic_path
platform.node = lambda: "another container"
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("written", flush=True)
    sys.stdin.read()
"""
needs_locks = pytest.mark.skipif(files.fcntl is None, reason="the platform has no locks")


def of_another_machine(name):
    """The name of the same file where a different machine writes it."""
    start, _, rest = name.rpartition("-")
    return f"{start.rpartition('.')[0]}.0123abcd-{2**22 + 7}-{rest}"


@needs_locks
def test_the_next_process_removes_the_temporary_files_of_killed_ones_of_any_machine(tmp_path):
    for name in ("a.json", "x" * 200 + ".safetensors", "no_suffix"):
        subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / name)], check=False)
        (left,) = names(tmp_path)
        assert left.startswith(f".{name[0]}")
    (tmp_path / of_another_machine(left)).write_text("half")
    kept = {".hidden", ".a.json", "b.json", ".a.0123abcd-7-0123456789abc.json"}
    for name in kept:
        (tmp_path / name).write_text("")
    with atomic_path(tmp_path / "mine") as own:
        own.write_text("1")
        subprocess.run(
            [sys.executable, "-c", KILLED.replace("os.kill", "0 and os.kill"), str(tmp_path / "z")]
        )
        assert own.exists()
        assert set(names(tmp_path)) == kept | {own.name, "z"}
    assert set(names(tmp_path)) == kept | {"mine", "z"}


@needs_locks
def test_the_file_of_a_live_process_is_kept_whatever_machine_its_name_is_of(tmp_path):
    command = [sys.executable, "-c", LIVE, str(tmp_path / "live.json")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"written\n"
        (live,) = names(tmp_path)
        atomic_write_text(tmp_path / "mine", "1")
        assert names(tmp_path) == [live, "mine"]
        process.stdin.close()
    assert process.returncode == 0
    assert names(tmp_path) == ["live.json", "mine"]


@needs_locks
def test_a_file_that_was_removed_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    real, removed = files.lock, []

    def late(handle, **keywords):
        if not removed:
            removed.extend(tmp_path.iterdir())
            removed[0].unlink()
        return real(handle, **keywords)

    monkeypatch.setattr(files, "lock", late)
    with atomic_path(tmp_path / "x") as temporary:
        assert (removed, names(tmp_path)) == ([temporary], [temporary.name])
        temporary.write_text("1")
    assert names(tmp_path) == ["x"]


@needs_locks
def test_where_the_file_system_has_no_locks_files_are_written_and_none_is_removed(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    (tmp_path / ".a.0123abcd-7-0123456789ab.json").write_text("half")
    atomic_write_text(tmp_path / "x", "1")
    assert names(tmp_path) == [".a.0123abcd-7-0123456789ab.json", "x"]


KILLED_FOLDER = """
import os, signal
from fewseg.ops.files import temporary_folder
with temporary_folder() as folder:
    (folder / "sub").mkdir()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@needs_locks
def test_the_next_process_removes_the_temporary_folders_of_killed_ones(tmp_path, monkeypatch):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", KILLED_FOLDER], check=False, env=environment)
    assert len(names(tmp_path)) == 1
    (tmp_path / "mine").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with temporary_folder() as folder:
        assert folder.stat().st_mode & 0o077 == 0
        assert set(names(tmp_path)) == {folder.name, "mine"}
    assert names(tmp_path) == ["mine"]
