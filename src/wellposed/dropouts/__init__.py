"""What is left out of a forward pass: dropout whose mask is a pure function of a key, a call and an index."""

from wellposed.dropouts.convert import Conversion as Conversion
from wellposed.dropouts.convert import convert_dropout as convert_dropout
from wellposed.dropouts.convert import dropout_conversion as dropout_conversion
from wellposed.dropouts.functional import dropout as dropout
from wellposed.dropouts.learned import ConcreteDropout as ConcreteDropout
from wellposed.dropouts.modules import AlphaDropout as AlphaDropout
from wellposed.dropouts.modules import Dropout as Dropout
from wellposed.dropouts.modules import Dropout1d as Dropout1d
from wellposed.dropouts.modules import Dropout2d as Dropout2d
from wellposed.dropouts.modules import Dropout3d as Dropout3d
from wellposed.dropouts.modules import FeatureAlphaDropout as FeatureAlphaDropout
from wellposed.dropouts.montecarlo import Samples as Samples
from wellposed.dropouts.montecarlo import monte_carlo as monte_carlo
from wellposed.dropouts.noise import GaussianDropout as GaussianDropout
from wellposed.dropouts.paths import DropPath as DropPath
from wellposed.dropouts.paths import LayerDrop as LayerDrop
from wellposed.dropouts.recurrent import DropConnect as DropConnect
from wellposed.dropouts.recurrent import Zoneout as Zoneout
from wellposed.dropouts.scope import checkpoint_context as checkpoint_context
from wellposed.dropouts.scope import keyed as keyed
from wellposed.dropouts.structured import DropBlock2d as DropBlock2d
from wellposed.dropouts.structured import EmbeddingDropout as EmbeddingDropout
from wellposed.dropouts.structured import LockedDropout as LockedDropout
from wellposed.dropouts.structured import TokenDropout as TokenDropout
