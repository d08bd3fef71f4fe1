import os
from dataclasses import astuple

import pytest

from loso.cli.corpus import app as build_app
from loso.engine import train_members
from loso.errors import Interrupted
from loso.machine import Cores, cores, memory

GIB = 2**30
MEMINFO = f"MemTotal:       {64 * 2**20} kB\nMemFree:  1 kB\nMemAvailable:   {48 * 2**20} kB\n"
UNLIMITED_V1 = "9223372036854771712"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Make a made-up root folder of files by path; the process may use 8 of 16 cores."""
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    def make(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return make


def in_group(version, path, **files):
    """The files of a control group at `path`, by their names without the group's folder."""
    lines = {2: f"0::{path}\n", 1: f"4:memory:{path}\n3:cpu,cpuacct:{path}\n0::/\n"}
    return {"proc/self/cgroup": lines[version], "proc/meminfo": MEMINFO, **files}


def test_without_groups_affinity_and_the_kernel_decide(root):
    made = root({"proc/meminfo": MEMINFO})
    assert astuple(cores(made)) == (8, 16, None)
    assert astuple(memory(made)) == (64 * GIB, 48 * GIB, None)


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", (8, 16, None)),
        ("150000 100000", (2, 16, 1.5)),
        ("50000 100000", (1, 16, 0.5)),
        ("1200000 100000", (8, 16, 12.0)),
    ],
)
def test_version_2_limits_cores_by_its_quota(root, quota, expected):
    made = root(in_group(2, "/a.slice", **{"sys/fs/cgroup/a.slice/cpu.max": quota}))
    assert astuple(cores(made)) == expected


def test_the_tightest_group_on_the_way_up_counts(root):
    made = root(
        in_group(
            2,
            "/a/b/c",
            **{
                "sys/fs/cgroup/a/b/c/cpu.max": "max 100000",
                "sys/fs/cgroup/a/b/cpu.max": "300000 100000",
                "sys/fs/cgroup/a/cpu.max": "400000 100000",
                "sys/fs/cgroup/a/b/c/memory.max": str(8 * GIB),
                "sys/fs/cgroup/a/b/c/memory.current": str(1 * GIB),
                "sys/fs/cgroup/a/memory.max": str(9 * GIB),
                "sys/fs/cgroup/a/memory.current": str(5 * GIB),
            },
        )
    )
    assert cores(made).limit == 3.0
    assert astuple(memory(made)) == (64 * GIB, 4 * GIB, 8 * GIB)


def test_cache_that_nobody_uses_is_available(root):
    folder = "sys/fs/cgroup/job"
    made = root(
        in_group(
            2,
            "/job",
            **{
                f"{folder}/memory.max": str(4 * GIB),
                f"{folder}/memory.current": str(3 * GIB),
                f"{folder}/memory.stat": f"anon 5\ninactive_file {2 * GIB}\nactive_file 7\n",
            },
        )
    )
    assert memory(made).available_bytes == 3 * GIB


@pytest.mark.parametrize("mounted_as", ["cpu", "cpu,cpuacct"])
def test_version_1_inside_of_a_container_has_its_limits_at_the_mount(root, mounted_as):
    # /proc names the group as the host does; that folder is not there inside.
    made = root(
        in_group(
            1,
            "/docker/5d1a",
            **{
                f"sys/fs/cgroup/{mounted_as}/cpu.cfs_quota_us": "250000\n",
                f"sys/fs/cgroup/{mounted_as}/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GIB}\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
                "sys/fs/cgroup/memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB}\n",
            },
        )
    )
    assert astuple(cores(made)) == (3, 16, 2.5)
    assert astuple(memory(made)) == (64 * GIB, 2 * GIB, 2 * GIB)


def test_version_1_without_limits_says_so(root):
    made = root(
        in_group(
            1,
            "/",
            **{
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{UNLIMITED_V1}\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
            },
        )
    )
    assert astuple(cores(made)) == (8, 16, None)
    assert memory(made).limit_bytes is None


def test_a_group_outside_of_the_visible_ones_is_that_of_the_mount(root):
    files = {"sys/fs/cgroup/cpu.max": "200000 100000", "sys/up/cpu.max": "100000 100000"}
    made = root(in_group(2, "/../../up", **files))
    assert cores(made).limit == 2.0


def test_a_system_without_these_files_is_asked_another_way(root, monkeypatch):
    monkeypatch.setattr(os, "sysconf_names", {"SC_PHYS_PAGES": 1, "SC_PAGE_SIZE": 2})
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.get)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert astuple(cores(root({}))) == (16, 16, None)
    assert astuple(memory(root({}))) == (4096000, None, None)
    monkeypatch.setattr(os, "sysconf_names", {})
    assert astuple(memory(root({}))) == (None, None, None)


def test_what_is_not_told_otherwise_takes_the_cores_that_it_may_use(monkeypatch):
    few = Cores(usable=3, present=64, limit=2.5)
    monkeypatch.setattr("loso.engine.cores", lambda: few)
    monkeypatch.setattr("loso.cli.coding.cores", lambda: few)
    asked = {}

    def taken(name):
        def record(*_, **settings):
            asked[name] = settings[name]
            raise Interrupted("seen")

        return record

    monkeypatch.setattr("loso.engine.native.train", taken("threads"))
    monkeypatch.setattr("loso.corpus.build.build_corpus", taken("jobs"))
    with pytest.raises(Interrupted):
        train_members(None, engine="native")
    with pytest.raises(Interrupted):
        build_app(["build", "a.mp4", "--encoder", "libx264", "--quality", "9"])
    assert asked == {"threads": 3, "jobs": 3}
