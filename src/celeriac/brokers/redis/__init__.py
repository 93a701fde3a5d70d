"""The broker on Redis (6.2 and newer) and Valkey.

Queues are kombu's lists, with the same names, envelopes and priority suffixes, so that stock Celery producers and
workers share them.  Leases, schedule and dead letters lie beside them under ``celeriac:``.
"""

from celeriac.brokers.redis.broker import RedisBroker
from celeriac.brokers.redis.options import RedisOptions

__all__ = ["RedisBroker", "RedisOptions"]
