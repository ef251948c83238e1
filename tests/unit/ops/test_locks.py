import os
import subprocess
import sys

from fewseg.ops.files import folder_alone, lock


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
