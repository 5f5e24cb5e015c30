"""Checks for those who add to qcord: `check_model` holds a signal model to the contract of all of them."""

from qcord.testing.check_model import ModelFault as ModelFault
from qcord.testing.check_model import ModelReport as ModelReport
from qcord.testing.check_model import check_model as check_model
