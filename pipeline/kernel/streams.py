"""Random numbers of an instance: one labelled stream, one child of it per purpose."""

import numpy as np

Stream = np.random.SeedSequence
"""The random stream of one instance; its labels are the entropy and the spawn key."""

_PURPOSES = (
    "sensing",
    "signal",
    "start",
    "probe",
    "couplings",
    "spectrum",
)  # append only: the position is the child's key


def generator(stream: Stream, purpose: str, index: int = 0) -> np.random.Generator:
    """Philox generator of one purpose within an instance's stream, the same at each call.

    Parameters
    ----------
    stream : SeedSequence
        Stream of the instance.
    purpose : str
        "sensing" (X), "signal" (w*), "start" (w(0)), "probe" (start vectors of Lanczos) or
        "couplings" (spiked model).
    index : int
        Counts independent draws of one purpose, such as replicas of w(0).
    """
    key = (*stream.spawn_key, _PURPOSES.index(purpose), index)
    child = np.random.SeedSequence(stream.entropy, spawn_key=key)
    return np.random.Generator(np.random.Philox(child))
