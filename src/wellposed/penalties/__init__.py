"""What a weight is pulled towards: penalties, and how they are put on an optimizer."""

from wellposed.penalties.attach import Handle as Handle
from wellposed.penalties.attach import regularize as regularize
from wellposed.penalties.base import Penalty as Penalty
from wellposed.penalties.plan import PenaltyPlan as PenaltyPlan
from wellposed.penalties.separable import L1 as L1
from wellposed.penalties.separable import L2 as L2
from wellposed.penalties.separable import ElasticNet as ElasticNet
