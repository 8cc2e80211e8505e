"""What was measured once is kept, and read only where nothing that it depends on has changed."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trivium.progress import Progress
from trivium.stages.kept import kept, weights_in_memory
from trivium.training.batch import Tree


def trees(first=3):
    return [Tree(np.array([first, 2]), (np.array([4, 5]), np.array([6]))), Tree(np.array([1]), (np.array([7, 8]),))]


VALUES = [np.array([0.1, -2.5, 3e-8], np.float32), np.array([1.0, 7.25], np.float32)]


@pytest.fixture
def measure(tmp_path):
    calls = []
    context = SimpleNamespace(scratch=tmp_path / "scratch", progress=Progress(quiet=True))

    def measured(name="reference", weights="w", rows=None, **settings):
        def compute(progress):
            calls.append(name)
            return VALUES
        return kept(context, name, weights, rows or trees(), {"precision": "bf16", **settings}, compute)
    measured.calls, measured.place = calls, tmp_path / "scratch" / "reference.safetensors"
    return measured


def test_measured_once_and_the_same_bits(measure):
    measure()
    again = measure()
    assert measure.calls == ["reference"]
    assert [one.tobytes() for one in again] == [one.tobytes() for one in VALUES]


@pytest.mark.parametrize("change", [{"weights": "v"}, {"rows": trees(9)}, {"precision": "float32"}])
def test_anything_else_is_measured_anew(measure, change):
    measure()
    measure(**change)
    assert len(measure.calls) == 2


def test_a_file_that_is_cut_is_measured_anew(measure):
    measure()
    whole = measure.place.read_bytes()
    for end in (0, 5, len(whole) // 2, len(whole) - 1):
        measure.place.write_bytes(whole[:end])
        assert [one.tolist() for one in measure()] == [one.tolist() for one in VALUES]
    assert len(measure.calls) == 5


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_one_changed_weight_changes_the_digest(kind):
    layer = torch.nn.Linear(3, 2).to(kind)
    before = weights_in_memory(layer)
    assert weights_in_memory(layer) == before
    with torch.no_grad():
        layer.weight[1, 2] += 1
    assert weights_in_memory(layer) != before
