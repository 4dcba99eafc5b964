from wellposed import init as init
from wellposed import random as random
from wellposed import textbook as textbook
from wellposed.dropouts import Dropout as Dropout
from wellposed.dropouts import checkpoint_context as checkpoint_context
from wellposed.dropouts import dropout as dropout
from wellposed.dropouts import keyed as keyed
from wellposed.errors import WellposedError as WellposedError
from wellposed.penalties import L1 as L1
from wellposed.penalties import L2 as L2
from wellposed.penalties import ElasticNet as ElasticNet
from wellposed.penalties import Penalty as Penalty
from wellposed.penalties import regularize as regularize
from wellposed.random import Box as Box
from wellposed.random import Key as Key

__version__: str
