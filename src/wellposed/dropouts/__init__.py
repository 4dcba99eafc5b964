"""What is left out of a forward pass: dropout whose mask is a pure function of a key, a call and an index."""

from wellposed.dropouts.functional import dropout as dropout
from wellposed.dropouts.modules import Dropout as Dropout
from wellposed.dropouts.scope import checkpoint_context as checkpoint_context
from wellposed.dropouts.scope import keyed as keyed
