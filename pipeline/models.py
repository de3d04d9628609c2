"""The models of the pipeline: from the labels of a block to what the kernel computes with."""

from collections.abc import Mapping
from typing import Literal

from pipeline.campaign_axes import count_measurements
from pipeline.instances import InstanceRule
from pipeline.kernel.models import Instances, Model, PhaseRetrievalModel, SpikedTensorModel
from pipeline.kernel.symmetric_form import count_monomials
from pipeline.theory.spiked_model import make_spiked_model

# couplings of an instance up to which they are held in memory: N = 290 at p = 3
_MOST_COUPLINGS = 1 << 22


def make_model(
    name: str, constants: Mapping[str, float], place: tuple[float, int], rule: InstanceRule
) -> Model:
    """Model of a block.

    Parameters
    ----------
    name : str
        Of the model.
    constants : mapping of str to float
        All its constants.
    place : (float, int)
        The control parameter, α or 1/Δ₂, and the dimension N.
    rule : InstanceRule
        Which instances are drawn as they are asked for.
    """
    value, N = place
    if name == "spiked_matrix_tensor":
        model = make_spiked_model(value, constants["delta_p"], int(constants["p"]))
        return SpikedTensorModel(
            model,
            N,
            choose_spiked_instances(rule.wanted, N, model.order),
            start_overlap=constants["overlap"],
            recovered_overlap=constants["recovered"],
        )
    measurements = count_measurements(value, N)
    return PhaseRetrievalModel(constants["a"], N, measurements, rule.choose(N, measurements))


def choose_spiked_instances(
    wanted: Literal["auto", "dense", "conditional"], N: int, order: int
) -> Instances:
    """What is wanted; "auto": couplings in memory at small N, else drawn as they are asked for."""
    if wanted != "auto":
        return wanted
    return "dense" if count_monomials(N, order) <= _MOST_COUPLINGS else "conditional"
