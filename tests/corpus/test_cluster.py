"""Tasks on a real Ray cluster of two workers on this machine."""

import os
import time
from dataclasses import replace

import pytest
from test_corpus_build import QUESTION, SETTINGS, digests, run, write_corpus

from trivium.corpus.build import Extras, build
from trivium.corpus.cluster import RayPool, pool_of
from trivium.corpus.repeated_spans import SpanSettings
from trivium.corpus.tasks import Pool, Task
from trivium.errors import TriviumError


def _fails(parameters, inputs, folder):
    raise TriviumError("this row is bad; mend it")


def test_an_executor_is_what_the_recipe_says(tmp_path):
    assert type(pool_of("local", tmp_path, 2, lambda *a: None)) is Pool


@pytest.mark.long
def test_two_ray_workers_write_the_same_bytes(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")]))
    inputs = tmp_path / "in"
    write_corpus(inputs)
    local = run(inputs, tmp_path / "local")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False)
        pool = pool_of("ray", tmp_path / "ray/scratch", 1, lambda *a: None)
        assert isinstance(pool, RayPool) and len(ray.nodes()) == 2 and pool._processors() == 2
        counts = build([inputs], Extras([QUESTION]), SETTINGS, tmp_path / "ray/out", tmp_path / "ray/scratch", 5, pool)
        assert counts == local and digests(tmp_path / "ray/out") == digests(tmp_path / "local/out")
        with pytest.raises(TriviumError, match="this row is bad"), RayPool(tmp_path / "x", 1,
                                                                           lambda *a: None) as failing:
            failing.run([Task("bad", _fails, {"n": n}) for n in range(3)])
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.long
def test_a_worker_lost_in_the_middle_of_every_step_changes_nothing(tmp_path, monkeypatch):
    """Two real workers in folders that the run's is none of; one of them is killed in every step, and another comes."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    settings = replace(SETTINGS, spans=SpanSettings(enabled=True))
    inputs = tmp_path / "in"
    write_corpus(inputs)
    local = run(inputs, tmp_path / "local", settings)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes, lost = [], []
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        nodes += [cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)]
        cluster.wait_for_nodes()

        class Losing(RayPool):
            """A pool that loses a node when a step's first tasks are under way."""

            def _begin(self, task):
                begun = super()._begin(task)
                if task.step not in lost:
                    lost.append(task.step)
                    time.sleep(0.3)
                    cluster.remove_node(nodes.pop(0), allow_graceful=False)
                    nodes.append(cluster.add_node(num_cpus=1))
                return begun

        pool = Losing(tmp_path / "ray/scratch", 1, lambda *a: None)
        counts = build([inputs], Extras([QUESTION]), settings, tmp_path / "ray/out", tmp_path / "ray/scratch", 5, pool)
        assert counts == local and digests(tmp_path / "ray/out") == digests(tmp_path / "local/out")
        assert {"read", "extract", "filter", "exact_duplicates", "band_groups", "near_duplicates", "shared_runs",
                "windows", "repeats", "finish"} <= set(lost)
    finally:
        ray.shutdown()
        cluster.shutdown()
