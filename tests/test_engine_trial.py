import sys
from dataclasses import replace

import pytest

from loso import engine
from loso.engine import trial
from loso.engine.native import instruction_sets
from loso.engine.trial import EngineTrial, try_engines


@pytest.fixture
def machine(monkeypatch):
    """Say what a made-up machine has; training there works with the engines in `trains`."""

    def make(*, kernel=True, driver=False, torch=True, cuda=False, trains=None):
        monkeypatch.setattr(engine, "_has_kernel", lambda: kernel)
        monkeypatch.setattr(engine, "_has_nvidia_driver", lambda: driver)
        monkeypatch.setattr(engine, "_has_cuda", lambda: cuda)
        monkeypatch.setattr(engine, "find_spec", lambda _: object() if torch else None)
        monkeypatch.setattr(trial, "cuda_name", lambda: "NVIDIA H100 80GB HBM3")
        tried = []

        def train(_, *, engine, device, **__):
            tried.append((engine, device))
            if trains is not None and (engine, device) not in trains:
                text = "CUDA error: no kernel image is available for execution on the device\n"
                raise RuntimeError(text + "CUDA kernel errors might be reported later")

        monkeypatch.setattr(trial, "train_members", train)
        return tried

    return make


def test_the_engine_of_this_machine_trains(monkeypatch):
    monkeypatch.delenv("LOSO_ISA", raising=False)
    found = try_engines()
    assert found.trains
    assert found.problem == ""
    if found.engine == "native":
        assert found.instruction_sets == tuple(instruction_sets())
        assert found.instruction_set == found.instruction_sets[0]


NATIVE, BATCHED, ON_CUDA = ("native", "cpu"), ("batched", "cpu"), ("batched", "cuda")


@pytest.mark.parametrize(
    ("has", "chosen", "reason"),
    [
        ({}, NATIVE, "no NVIDIA driver; the compiled kernel is there"),
        ({"kernel": False}, BATCHED, "no NVIDIA driver; no compiled kernel"),
        (
            {"driver": True, "torch": False},
            NATIVE,
            "an NVIDIA driver, but no torch to train with; the compiled kernel is there",
        ),
        (
            {"driver": True},
            NATIVE,
            "an NVIDIA driver, but this torch sees no CUDA device; the compiled kernel is there",
        ),
        (
            {"driver": True, "kernel": False},
            BATCHED,
            "an NVIDIA driver, but this torch sees no CUDA device; no compiled kernel",
        ),
        ({"driver": True, "cuda": True}, ON_CUDA, "torch sees a CUDA device"),
    ],
)
def test_the_choice_has_its_reason(machine, has, chosen, reason):
    tried = machine(**has)
    found = try_engines()
    assert (found.engine, found.device) == chosen
    assert found.reason == reason
    assert tried == [chosen]
    assert found.cuda_device == ("NVIDIA H100 80GB HBM3" if chosen == ON_CUDA else None)


def test_where_the_gpu_fails_what_works_instead_is_named(machine):
    tried = machine(driver=True, cuda=True, trains={NATIVE})
    found = try_engines()
    assert found.problem == "CUDA error: no kernel image is available for execution on the device"
    assert found.instead == "--engine native --device cpu"
    assert found.trains
    assert tried == [ON_CUDA, NATIVE]


def test_where_nothing_trains_the_first_reason_stands(machine):
    tried = machine(trains=())
    found = try_engines()
    assert found.problem.startswith("CUDA error: no kernel image")
    assert not found.trains
    assert tried == [NATIVE, BATCHED]


def test_an_instruction_set_that_is_not_here_is_said(monkeypatch):
    monkeypatch.setenv("LOSO_ISA", "neon")
    monkeypatch.setattr(engine, "_has_nvidia_driver", lambda: False)
    monkeypatch.setattr(trial, "_FALLBACKS", ())
    here, found = instruction_sets(), try_engines()
    assert found.problem == (
        "LOSO_ISA: this machine does not run that instruction set, expected "
        f"{' or '.join(here)}, found neon"
    )
    assert (found.instruction_set, found.instruction_sets) == ("", tuple(here))
    assert not found.trains


def test_without_kernel_and_torch_the_way_out_is_named(monkeypatch):
    monkeypatch.setattr(engine, "_has_kernel", lambda: False)
    monkeypatch.setattr(engine, "_has_nvidia_driver", lambda: False)
    monkeypatch.setattr(engine, "find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "loso.engine.native", None)
    expected = EngineTrial(
        problem="the batched engine needs torch", fix="pip install 'loso[torch]'"
    )
    assert try_engines() == expected


def test_a_kernel_that_cannot_be_loaded_is_said(monkeypatch):
    monkeypatch.setattr(engine, "_has_nvidia_driver", lambda: False)
    monkeypatch.setattr(trial, "_FALLBACKS", ())
    monkeypatch.setitem(sys.modules, "loso.engine.native", None)
    found = try_engines()
    assert replace(found, reason="") == EngineTrial(
        engine="native",
        device="cpu",
        problem="import of loso.engine.native halted; None in sys.modules",
    )
