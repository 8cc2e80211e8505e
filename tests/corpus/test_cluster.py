"""Tasks on a real Ray cluster of two workers on this machine."""

import os

import pytest
from test_corpus_build import QUESTION, SETTINGS, digests, run, write_corpus

from trivium.corpus.build import Extras, build
from trivium.corpus.cluster import RayPool, pool_of
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
