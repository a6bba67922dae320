import subprocess
import sys

import pytest

from jdna_cli.compute import threads

V2 = {"proc/self/cgroup": "0::/pod/one\n"}
V1 = {"proc/self/cgroup": "12:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n0::/\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({**V2, "sys/fs/cgroup/pod/one/cpu.max": "200000 100000\n"}, 2.0),
        ({**V2, "sys/fs/cgroup/pod/one/cpu.max": "max 100000\n"}, None),
        # The least of all groups around.
        (
            {
                **V2,
                "sys/fs/cgroup/pod/one/cpu.max": "max 100000\n",
                "sys/fs/cgroup/pod/cpu.max": "150000 100000\n",
            },
            1.5,
        ),
        # A container that sees its own group at the top, under the host's name.
        ({**V2, "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),
        (
            {
                **V1,
                "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000\n",
            },
            4.0,
        ),
        (
            {
                **V1,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
)
def test_a_quota_is_read_from_either_kind_of_control_group(tmp_path, files, expected):
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert threads.quota(tmp_path) == expected


@pytest.mark.parametrize(
    ("visible", "quota", "usable"),
    [(64, 2.0, 2), (64, None, 64), (64, 2.5, 2), (64, 0.5, 1), (2, 8.0, 2)],
)
def test_as_many_threads_as_whole_cores_may_be_used(visible, quota, usable):
    assert threads.Cores(visible, quota).usable == usable


ASK = """
import os
from jdna_cli.compute import threads
{before}
threads.prepare()
import torch
print(torch.get_num_threads(), os.environ.get("GOMP_SPINCOUNT"), threads.waiting())
"""


def asked(before="", **environment):
    import os

    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP", "KMP"))}
    return subprocess.run(
        [sys.executable, "-c", ASK.format(before=before)],
        env={**inherited, **environment}, capture_output=True, text=True, check=True,
    ).stdout.split(maxsplit=2)  # fmt: skip


def test_on_one_core_there_is_one_thread():
    count, _, waits = asked("os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])")
    assert (count, waits.strip()) == ("1", "short spin")


def test_a_quota_bounds_torch_and_what_the_user_set_stays():
    quota = "threads.cores = lambda: threads.Cores(64, 1.0)"
    assert asked(quota)[0] == "1"
    assert asked(quota, OMP_NUM_THREADS="2")[0] == "2"
    _, spin, waits = asked(OMP_WAIT_POLICY="PASSIVE")
    assert (spin, waits.strip()) == ("None", "OMP_WAIT_POLICY=PASSIVE")
