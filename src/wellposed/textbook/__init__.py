"""The chapter by hand: initialization, regularization and dropout in a network trained by written-out backpropagation.

Everything here favours reading over speed, and nothing uses autograd. The dense layer multiplies ``x @ w``, so weights
are ``(in, out)``, the transpose of PyTorch's. Where the chapter and a paper differ, the chapter's formula stands here
and the paper's in ``wellposed.init`` and ``wellposed.penalties``.
"""

from wellposed.textbook.backpropagation import DenseLayer as DenseLayer
from wellposed.textbook.backpropagation import Gradients as Gradients
from wellposed.textbook.backpropagation import Network as Network
from wellposed.textbook.chapter import DenseInitializer as DenseInitializer
from wellposed.textbook.chapter import GlorotInitializer as GlorotInitializer
from wellposed.textbook.chapter import HeInitializer as HeInitializer
from wellposed.textbook.chapter import L1Regularizer as L1Regularizer
from wellposed.textbook.chapter import L2Regularizer as L2Regularizer
from wellposed.textbook.chapter import RandomInitializer as RandomInitializer
from wellposed.textbook.chapter import Regularizer as Regularizer
from wellposed.textbook.chapter import dropout as dropout
from wellposed.textbook.data import Data as Data
from wellposed.textbook.data import diabetes as diabetes
from wellposed.textbook.data import digits as digits
from wellposed.textbook.drawing import draw_network as draw_network
from wellposed.textbook.drawing import tikz_network as tikz_network
from wellposed.textbook.functions import ACTIVATIONS as ACTIVATIONS
from wellposed.textbook.functions import LOSSES as LOSSES
from wellposed.textbook.functions import Activation as Activation
from wellposed.textbook.functions import Loss as Loss
