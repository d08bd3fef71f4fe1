import os

import pytest

from loso.errors import MissingTool
from loso.video.gpus import NvidiaGpu, RenderNode, nvidia_gpus, render_nodes


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Put a program of that name in front of the PATH; it prints, then ends with a code."""

    def make(printed, code=0):
        path = tmp_path / "nvidia-smi"
        asked = "--query-gpu=name,memory.total,driver_version --format=csv,noheader,nounits"
        path.write_text(
            f"#!/bin/sh\n[ \"$*\" = '{asked}' ] || exit 99\ncat <<'E'\n{printed}E\nexit {code}\n"
        )
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return make


def test_each_gpu_of_nvidia_is_read(nvidia_smi):
    # As recorded: a data-centre card, and one whose memory is the machine's.
    nvidia_smi("NVIDIA H100 80GB HBM3, 81559, 580.159.04\nNVIDIA GB10, [N/A], 580.95.05\n")
    assert nvidia_gpus() == (
        NvidiaGpu("NVIDIA H100 80GB HBM3", 81559, "580.159.04"),
        NvidiaGpu("NVIDIA GB10", None, "580.95.05"),
    )


HAS_FAILED = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that "
    "the latest NVIDIA driver is installed and running."
)
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch"


@pytest.mark.parametrize(
    ("printed", "code", "reason"),
    [
        (f"{HAS_FAILED}\n\n", 9, f"nvidia-smi does not run (exit code 9: {HAS_FAILED})"),
        (
            f"{MISMATCH}\nNVML library version: 550.127\n",
            18,
            f"nvidia-smi does not run (exit code 18: {MISMATCH})",
        ),
        ("No devices were found\n", 0, "nvidia-smi lists no GPU (No devices were found)"),
        ("", 0, "nvidia-smi lists no GPU (it printed nothing)"),
    ],
)
def test_a_driver_that_does_not_answer_says_why_in_one_line(nvidia_smi, printed, code, reason):
    nvidia_smi(printed, code)
    with pytest.raises(MissingTool) as failure:
        nvidia_gpus()
    assert str(failure.value) == reason


def test_a_machine_without_a_driver_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingTool) as failure:
        nvidia_gpus()
    assert str(failure.value) == "nvidia-smi is not there"


def test_render_nodes_are_listed_with_their_drivers(tmp_path, monkeypatch):
    assert render_nodes(tmp_path) == ()
    (tmp_path / "dev/dri").mkdir(parents=True)
    for name in ("renderD129", "renderD128", "card0"):
        (tmp_path / "dev/dri" / name).touch()
    (tmp_path / "bus/drivers/i915").mkdir(parents=True)
    device = tmp_path / "sys/class/drm/renderD128/device"
    device.mkdir(parents=True)
    (device / "driver").symlink_to(tmp_path / "bus/drivers/i915")
    monkeypatch.setattr(os, "access", lambda path, _: path.name == "renderD128")
    assert render_nodes(tmp_path) == (
        RenderNode("/dev/dri/renderD128", "i915", may_open=True),
        RenderNode("/dev/dri/renderD129", "", may_open=False),
    )
