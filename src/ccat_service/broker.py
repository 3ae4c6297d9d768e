"""Celery's Redis, but for one trap."""

from typing import Any

from kombu.transport import redis
from kombu.transport.virtual import QoS as VirtualQoS


class _QoS(redis.QoS):
    """Counts a message as done even where Redis is not there to hear of it.

    Celery's own waits for ever that such a message is done, and takes no other: a worker that was at work while Redis
    died would be deaf. What Redis forgot, and what it hands out again, is told by the database's sweeper anyway.
    """

    def ack(self, delivery_tag: Any) -> None:
        """Tell Redis, as far as possible; raises as Celery's own."""
        try:
            super().ack(delivery_tag)
        finally:
            VirtualQoS.ack(self, delivery_tag)


class _Channel(redis.Channel):
    QoS = _QoS


class Transport(redis.Transport):
    """To be named by Celery's setting `broker_transport`."""

    Channel = _Channel
