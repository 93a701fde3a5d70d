"""``app.control``: Celery's, with revocations that last and cancellation that reaches running tasks."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import celery.app.control
from celery.utils.functional import maybe_list

from celeriac.compat import connect
from celeriac.compat.control.cancelling import any_cancellations
from celeriac.compat.long_work.orders import GRACE_SECONDS, KEPT_SECONDS, CancelLog, CancelOrder
from celeriac.compat.unsettled import store_before_revoking
from celeriac.errors import ConfigurationError, StoreError

logger = logging.getLogger("celeriac")


class Control(celery.app.control.Control):
    """Remote control of an app's workers."""

    def revoke(
        self, task_id: Any, destination: Any = None, terminate: bool = False, signal: Any = "SIGTERM", **kwargs: Any
    ) -> Any:
        """As :meth:`celery.app.control.Control.revoke`; workers that are started later, or were away, hear of it as well."""
        store_before_revoking(self.app)
        arguments = {"task_id": task_id, "terminate": terminate, "signal": signal}
        if destination is None and any_cancellations(self.app):
            arguments["kept"] = self._keep(CancelOrder(_ids(task_id)))
        return self.broadcast("revoke", destination=destination, arguments=arguments, **kwargs)

    def cancel(self, task_id: str | Iterable[str], grace: float = GRACE_SECONDS) -> None:
        """Cancel tasks, wherever they are: those that wait are not started, and those that run are brought to an end.

        A running task that asks (:func:`celeriac.check_cancelled`, or its cursor) stops by itself.  After ``grace`` seconds
        it gets an exception, and after as long again its process is killed; its state is ``REVOKED`` then.  It reaches a
        running task within two seconds, and holds for a week, whatever is restarted.

        Raises:
            ConfigurationError: there is no store that could keep it.
            StoreUnavailable: the store is away; nothing is known to have been cancelled.
        """
        ids = _ids(task_id)
        _log(self.app).append(CancelOrder(ids, stop=True, grace=float(grace)))
        self.broadcast("revoke", arguments={"task_id": list(ids), "kept": True})

    def _keep(self, order: CancelOrder) -> bool:
        try:
            _log(self.app).append(order)
        except ConfigurationError:
            return False  # as in Celery then: those workers hear of it that are there
        except StoreError as error:
            logger.warning("The revocation reaches only workers that are there now: %s", error)
            return False
        return True


def _log(app: Any) -> CancelLog:
    return CancelLog(connect.key_values(app), float(app.conf.get("celeriac_revoke_expires") or KEPT_SECONDS))


def _ids(task_id: Any) -> tuple[str, ...]:
    return tuple(str(each) for each in maybe_list(task_id) or ())
