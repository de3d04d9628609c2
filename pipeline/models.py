"""The models of the pipeline: from the labels of a block to what the kernel computes with."""

from collections.abc import Mapping
from typing import Any

from pipeline.campaign_axes import count_measurements
from pipeline.campaign_spiked import choose_spiked_instances
from pipeline.instances import InstanceRule
from pipeline.kernel.models import Model, PhaseRetrievalModel, SpikedTensorModel
from pipeline.theory.spiked_model import make_spiked_model


def make_model(
    name: str, constants: Mapping[str, Any], place: tuple[float, int], rule: InstanceRule
) -> Model:
    """Model of a block.

    Parameters
    ----------
    name : str
        Of the model.
    constants : mapping of str to float, int or str
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
            start_overlap=constants["m0"],
            recovered_overlap=constants["recovered"],
            form=constants["form"],
        )
    measurements = count_measurements(value, N)
    return PhaseRetrievalModel(constants["a"], N, measurements, rule.choose(N, measurements))
