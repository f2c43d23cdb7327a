"""Scorers, allocators, restarts, rescaling, and SiPP with its certificates."""

from sparsight.pruning.allocate.fixed import FORCE, Global, IterativeSNIP, Shrink, Uniform
from sparsight.pruning.allocate.n_of_m import NofM
from sparsight.pruning.allocate.sap import SAP
from sparsight.pruning.allocate.shuffled import Shuffled
from sparsight.pruning.conditioning import Conditioning, IllConditioned, conditioning
from sparsight.pruning.reinitialise import Reinitialise
from sparsight.pruning.rescale import Rescale
from sparsight.pruning.restart import carry_on, rewind
from sparsight.pruning.score.grasp import GraSP
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.pruning.score.mbp import MBP
from sparsight.pruning.score.random import Random
from sparsight.pruning.score.snip import SNIP
from sparsight.pruning.score.synflow import SynFlow
from sparsight.pruning.sipp.allocate import SiPPDet, SiPPHybrid, SiPPRand
from sparsight.pruning.sipp.score import SiPP
from sparsight.pruning.stable_resnet import residual_branches, stable_resnet

__all__ = ["FORCE", "MBP", "SAP", "SNIP", "Conditioning", "Global", "GraSP", "IllConditioned", "IterativeSNIP"]
__all__ += ["Magnitude", "NofM", "Random", "Reinitialise", "Rescale", "Shrink", "Shuffled", "SiPP", "SiPPDet"]
__all__ += ["SiPPHybrid", "SiPPRand", "SynFlow", "Uniform", "carry_on", "conditioning", "residual_branches", "rewind"]
__all__ += ["stable_resnet"]
