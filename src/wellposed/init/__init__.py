"""What a weight starts as: initializers, fans and gains."""

from wellposed.init.base import Initializer as Initializer
from wellposed.init.entrywise import Constant as Constant
from wellposed.init.entrywise import Normal as Normal
from wellposed.init.entrywise import Ones as Ones
from wellposed.init.entrywise import Random as Random
from wellposed.init.entrywise import TruncatedNormal as TruncatedNormal
from wellposed.init.entrywise import Uniform as Uniform
from wellposed.init.entrywise import Zeros as Zeros
from wellposed.init.fans import Axes as Axes
from wellposed.init.fans import fans as fans
from wellposed.init.gain import gain as gain
from wellposed.init.initializers import Glorot as Glorot
from wellposed.init.initializers import He as He
from wellposed.init.initializers import Kaiming as Kaiming
from wellposed.init.initializers import LeCun as LeCun
from wellposed.init.initializers import VarianceScaling as VarianceScaling
from wellposed.init.initializers import Xavier as Xavier
