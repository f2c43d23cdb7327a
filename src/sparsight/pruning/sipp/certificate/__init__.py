"""Which error bound a pruned network satisfies, and the error measured beside it."""

from sparsight.pruning.sipp.certificate.certify import certify, pruning_of
from sparsight.pruning.sipp.certificate.records import (
    Certificate,
    LayerCertificate,
    NetworkCertificate,
    NeuronCertificate,
)

__all__ = ["Certificate", "LayerCertificate", "NetworkCertificate", "NeuronCertificate", "certify", "pruning_of"]
