"""One cluster for all tests of the folder; whatever a test breaks is whole again for the next."""

from collections.abc import Iterator

import pytest
from tests.cluster.nodes import Cluster, running_cluster


@pytest.fixture(scope="session")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Return a cluster that all tests share."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster(nodes: Cluster) -> Cluster:
    """Return a whole cluster that holds nothing."""
    nodes.restore()
    return nodes
