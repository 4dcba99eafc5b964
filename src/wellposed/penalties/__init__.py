"""What a weight is pulled towards: penalties, and how they are put on an optimizer."""

from wellposed.penalties import constraints as constraints
from wellposed.penalties.attach import Handle as Handle
from wellposed.penalties.attach import regularize as regularize
from wellposed.penalties.base import Penalty as Penalty
from wellposed.penalties.base import Traits as Traits
from wellposed.penalties.group import GroupLasso as GroupLasso
from wellposed.penalties.group import GroupMCP as GroupMCP
from wellposed.penalties.group import SparseGroupLasso as SparseGroupLasso
from wellposed.penalties.grouping import Heads as Heads
from wellposed.penalties.nonconvex import L0 as L0
from wellposed.penalties.nonconvex import MCP as MCP
from wellposed.penalties.nonconvex import SCAD as SCAD
from wellposed.penalties.nonconvex import LHalf as LHalf
from wellposed.penalties.plan import PenaltyPlan as PenaltyPlan
from wellposed.penalties.plan import PlanRow as PlanRow
from wellposed.penalties.reference import AdaptiveL1 as AdaptiveL1
from wellposed.penalties.reference import Towards as Towards
from wellposed.penalties.report import PenaltyReport as PenaltyReport
from wellposed.penalties.separable import L1 as L1
from wellposed.penalties.separable import L2 as L2
from wellposed.penalties.separable import ElasticNet as ElasticNet
from wellposed.penalties.separable import Huber as Huber
from wellposed.penalties.spectral import NuclearNorm as NuclearNorm
from wellposed.penalties.spectral import SoftOrthogonality as SoftOrthogonality
from wellposed.penalties.spectral import SpectralNorm as SpectralNorm
