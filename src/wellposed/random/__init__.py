"""Keyed random numbers: a value is a pure function of a key, a call number and a global element index."""

from wellposed.random.backend import backend as backend
from wellposed.random.box import Box as Box
from wellposed.random.distributions import bernoulli as bernoulli
from wellposed.random.distributions import bernoulli_ as bernoulli_
from wellposed.random.distributions import bits as bits
from wellposed.random.distributions import normal as normal
from wellposed.random.distributions import normal_ as normal_
from wellposed.random.distributions import truncated_normal as truncated_normal
from wellposed.random.distributions import truncated_normal_ as truncated_normal_
from wellposed.random.distributions import uniform as uniform
from wellposed.random.distributions import uniform_ as uniform_
from wellposed.random.key import Key as Key
