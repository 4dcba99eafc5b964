"""Experiments on data: what initialization, regularization and dropout each do to a network."""

from wellposed.study.conduct import Study as Study
from wellposed.study.conduct import study as study
from wellposed.study.design import Settings as Settings
