"""The state machine of one member, as one other member sees it.

::

                 suspicion, death              death
        ALIVE ---------------------> SUSPECT ---------> DEAD
          ^                             |                 |
          |   assertion, answer         |    assertion    |
          +-----------------------------+-----------------+
          |                                    departure of any of the three
          |        rebirth                                |
          +------------------- LEFT <---------------------+

SWIM's three states (Das et al., DSN 2002, section 4.2) and a fourth for those who left.
Two differences from memberlist:

* A claim of another, of death as well, makes a live member only a suspect. So nobody can kill by a
  word: the subject always has one suspicion's time to refute, and a node declares nobody dead that
  answers a ping of its own. The answer alone ends its suspicion; that of others the refutation.
* LEFT is final for one life. A departure is signed and only a new life, a greater boot epoch,
  undoes it; late gossip of the old life changes nothing.
"""

from enum import Enum, IntEnum
from types import MappingProxyType


class Health(IntEnum):
    """What a member believes of another."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3


class Evidence(Enum):
    """What can change the belief; all of it is about the version believed in, or a later one."""

    SUSPICION = "somebody signed that it is silent or dead"
    DEATH = "our suspicion ran out, and it did not answer us"
    ANSWER = "it answered us"
    ASSERTION = "it signed a newer record of the same life"
    REBIRTH = "it signed a record of a later life"
    DEPARTURE = "it signed that it leaves"


# The whole state machine. A pair that is not here changes nothing.
TRANSITIONS = MappingProxyType(
    {
        (Health.ALIVE, Evidence.SUSPICION): Health.SUSPECT,
        (Health.SUSPECT, Evidence.DEATH): Health.DEAD,
        (Health.SUSPECT, Evidence.ANSWER): Health.ALIVE,
        (Health.SUSPECT, Evidence.ASSERTION): Health.ALIVE,
        (Health.DEAD, Evidence.ASSERTION): Health.ALIVE,
        (Health.SUSPECT, Evidence.REBIRTH): Health.ALIVE,
        (Health.DEAD, Evidence.REBIRTH): Health.ALIVE,
        (Health.LEFT, Evidence.REBIRTH): Health.ALIVE,
        (Health.ALIVE, Evidence.DEPARTURE): Health.LEFT,
        (Health.SUSPECT, Evidence.DEPARTURE): Health.LEFT,
        (Health.DEAD, Evidence.DEPARTURE): Health.LEFT,
    }
)

LIVE = frozenset({Health.ALIVE, Health.SUSPECT})


def weigh(health: Health, evidence: Evidence) -> Health:
    """Return what is believed after ``evidence``."""
    return TRANSITIONS.get((health, evidence), health)
