"""What each parameter of a model is for: the table, and the rows for torch and for the libraries built on it."""

from wellposed.models.roles import of_peft as of_peft
from wellposed.models.roles import of_timm as of_timm
from wellposed.models.roles import of_torch as of_torch
from wellposed.models.roles import of_torchvision as of_torchvision
from wellposed.models.roles import of_transformers as of_transformers
from wellposed.models.roles.by_name import is_called_normalisation as is_called_normalisation
from wellposed.models.roles.by_name import kind_by_name as kind_by_name
from wellposed.models.roles.of_torch import CONVOLUTIONS as CONVOLUTIONS
from wellposed.models.roles.of_torch import buffers_of as buffers_of
from wellposed.models.roles.of_torch import is_normalisation as is_normalisation
from wellposed.models.roles.registry import Kind as Kind
from wellposed.models.roles.registry import Part as Part
from wellposed.models.roles.registry import Parts as Parts
from wellposed.models.roles.registry import Start as Start
from wellposed.models.roles.registry import blocks as blocks
from wellposed.models.roles.registry import parts_of as parts_of
from wellposed.models.roles.registry import role as role
from wellposed.models.roles.registry import role_pattern as role_pattern
