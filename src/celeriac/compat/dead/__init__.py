"""The dead letters of an app: ``app.dead_letters``, and what ``celeriac dead`` does."""

from celeriac.compat.dead.letter import DeadLetter
from celeriac.compat.dead.letters import Acted, DeadLetters
from celeriac.compat.dead.renewing import CannotEdit, Edit
from celeriac.compat.dead.selection import Selection

__all__ = ["Acted", "CannotEdit", "DeadLetter", "DeadLetters", "Edit", "Selection"]
