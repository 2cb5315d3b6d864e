"""Feature computation itself on a cluster: the real worker, the real Kafka, and at the end the fold of the log bit for bit."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.nodes import Cluster
from tests.features.rig import Rig, until

from tidemill.online.keys import fence_key
from tidemill.redis.cluster import slot_of

pytestmark = pytest.mark.integration


@pytest.fixture
def rig(kafka: str, cluster: Cluster, topic_prefix: str, tmp_path: Path) -> Iterator[Rig]:
    """Return a project of two views, six partitions in all, whose store is the cluster."""
    rig = Rig(topic_prefix, tmp_path / "project", kafka, "redis://")
    rig.redis_url = cluster.url
    rig.store = cluster.client()  # type: ignore[assignment]  # the same commands, to whichever node has the key
    yield rig
    rig.stop()


def slot(rig: Rig, view: str, partition: int) -> int:
    """The slot of a partition."""
    return slot_of(fence_key(rig.name, rig.project.views[view].log, partition))


def test_a_worker_through_migration_and_fail_over(rig: Rig, cluster: Cluster) -> None:
    """A slot migrates key by key while events come, then a primary dies and a replica that lags takes over: nothing is lost or doubled."""
    rig.produce(3_000)
    worker = rig.worker()
    rig.wait_folded()
    moving = slot(rig, "by_card", 0)
    source = cluster.owner(moving)
    target = next(node for node in cluster.nodes if node.is_primary() and node is not source)
    with cluster.migrating(moving, target) as move:
        keys = source.in_slot(moving)
        move(keys[: len(keys) // 2])
        rig.produce(2_000)
        move(keys[len(keys) // 2 :])
        rig.produce(2_000)
    rig.wait_folded()
    rig.check()

    def meanwhile() -> None:
        rig.produce(3_000)
        rig.wait_folded()

    cluster.fail_over_lagging(cluster.owner(moving), meanwhile)
    rig.produce(1_000)
    rig.wait_folded()
    rig.check()
    assert worker.metric("tidemill_features_rewinds_total") > 0
    worker.wait_ready()


def test_a_worker_while_a_node_is_down(rig: Rig, cluster: Cluster) -> None:
    """Partitions on a node that is away wait, with the reason in the readiness, and hold up no other; they go on when it is back."""
    rig.produce(3_000)
    worker = rig.worker()
    rig.wait_folded()
    down = cluster.owner(slot(rig, "by_card", 0))
    topics = {
        (view.name, partition): topic
        for view, topic in zip(rig.project.views.values(), rig.topics(), strict=True)
        for partition in range(view.partitions)
    }
    others = [(topics[place], place[1]) for place in topics if cluster.owner(slot(rig, *place)) is not down]
    assert 0 < len(others) < len(topics)
    before = [rig.position(*place) for place in others]
    down.kill()
    rig.produce(3_000)
    until(lambda: all(rig.position(*place) > at for place, at in zip(others, before, strict=True)), worker.tail)
    worker.wait_saying("of the Redis Cluster")
    rig.produce(1_000)
    down.start()
    rig.wait_folded()
    rig.check()
    worker.wait_ready()
