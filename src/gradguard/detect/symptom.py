"""The names of what can be wrong."""

from enum import Enum


class Symptom(str, Enum):
    """What a finding is about. A ``str``, so that it logs, compares and saves as its value."""

    NON_FINITE = "non_finite"
    EXPLODING_DEPTH = "exploding_depth"
    EXPLODING_TIME = "exploding_time"
    VANISHING_DEPTH = "vanishing_depth"
    VANISHING_TIME = "vanishing_time"
    DEAD_UNITS = "dead_units"
    SATURATED_UNITS = "saturated_units"
    SATURATED_GATES = "saturated_gates"
    POOR_INITIALISATION = "poor_initialisation"
    UPDATE_TOO_LARGE = "update_too_large"
    UPDATE_TOO_SMALL = "update_too_small"
    NO_GRADIENT = "no_gradient"
    LOSS_SPIKE = "loss_spike"
    OSCILLATING_LOSS = "oscillating_loss"
    SLOW_CONVERGENCE = "slow_convergence"
    CLIPPED_TOO_OFTEN = "clipped_too_often"
    CLIPPED_UPSTREAM = "clipped_upstream"
