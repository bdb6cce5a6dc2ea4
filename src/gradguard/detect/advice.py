"""Symptom -> what to try, in the order in which the field would try it: cheap and safe first."""

from __future__ import annotations

from collections.abc import Mapping

from gradguard.detect.symptom import Symptom

ADVICE: Mapping[Symptom, tuple[str, ...]] = {
    Symptom.NON_FINITE: (
        "Run the batch of the first bad step again: probe.first_bad_module(model, batch, loss_fn) names the module.",
        "Look at the batch of the first bad step: NaN or Inf in inputs or targets, an empty mask, a wrong label.",
        "Guard what divides or takes a logarithm or a root: add an epsilon inside sqrt, log and norms, not outside.",
        "Lower the learning rate, or warm it up, if the update-to-weight ratio rose before the first bad step.",
        "Skip such steps where single batches are bad (recover=Skip()); under fp16 use a GradScaler, or use bf16.",
        "If a loss scaler skips every step, look at the loss itself: no scale helps where it is NaN.",
    ),
    Symptom.VANISHING_DEPTH: (
        "Replace saturating activations (sigmoid, tanh) in hidden layers by ReLU, GELU or SiLU.",
        "Initialise for the activation in use (torch.nn.init): Kaiming's for ReLU, Xavier's for tanh.",
        "Put a normalisation layer (LayerNorm, BatchNorm) before each activation.",
        "Add residual connections, so that the gradient has a path past each layer.",
    ),
    Symptom.EXPLODING_DEPTH: (
        "Clip the gradient norm, to keep the run alive while you mend the cause.",
        "Initialise for the activation in use: a gain that is too large multiplies through every layer.",
        "Put a normalisation layer (LayerNorm, BatchNorm) before each activation.",
        "Scale residual branches down at the start (zero-initialise the last norm or projection of each).",
    ),
    Symptom.VANISHING_TIME: (
        "Open the forget gate at the start: init.forget_gate_(lstm, 1.0), or, for memories of T steps, "
        "init.chrono_(lstm, T).",
        "Replace a plain RNN by an LSTM or a GRU; for thousands of steps by gradguard.nn.IndRNN(length=T).",
        "Initialise recurrent weights orthogonally: init.orthogonal_(rnn); of a ReLU network as the identity: "
        "init.identity_(rnn).",
        "Give far steps a shorter way to the loss: attention or a mean over all outputs in place of the last one, "
        "fewer and longer steps.",
        "Where the task needs no more than the horizon, say how far it reaches: through_time=ThroughTime(lag=...).",
    ),
    Symptom.EXPLODING_TIME: (
        "Clip the gradient norm, to keep the run alive while you mend the cause.",
        "Bring the recurrent weights to a spectral radius of 1 or below: init.orthogonal_(rnn), "
        "init.spectral_radius_(rnn, 0.95).",
        "Lower the learning rate, if the growth came in the course of the run.",
        "Bound what goes from a step to the one before: clip_grad_state, IndRNN or LayerNormLSTM of gradguard.nn.",
        "Cut long sequences into windows: detach the state every few hundred steps.",
    ),
    Symptom.SATURATED_GATES: (
        "Set the biases anew: init.forget_gate_(lstm, 1.0); for memories of T steps init.chrono_(lstm, T).",
        "Lower the learning rate, if the gates closed or opened in the course of the run.",
        "Bring the inputs to mean 0 and variance 1, so that they do not push the gates to their ends.",
        "Normalise what goes into the gates: gradguard.nn.LayerNormLSTM in place of nn.LSTM.",
    ),
    Symptom.POOR_INITIALISATION: (
        "Initialise for the activations in use: init.for_activations_(model, batch).",
        "Give weights random values (biases may be 0): units that start alike stay alike.",
        "Bring inputs to mean 0 and variance 1.",
        "Let the data set the scale: init.lsuv_(model, batch); or put a normalisation layer behind each weight.",
        "Use shortcuts around pairs of layers in networks of more than about ten (init.zero_residual_).",
    ),
    Symptom.DEAD_UNITS: (
        "Lower the learning rate, or warm it up, if the units died in the course of the run.",
        "Start biases at 0 and weights by Kaiming's rule (init.for_activations_(model, batch)).",
        "Replace ReLU by LeakyReLU, GELU or SiLU in the layers that are named.",
        "Put a normalisation layer (BatchNorm, LayerNorm) before the activation: it brings units back.",
    ),
    Symptom.SATURATED_UNITS: (
        "Bring inputs to mean 0 and variance 1.",
        "Initialise for the activation in use: init.for_activations_(model, batch), Xavier's for tanh.",
        "Lower the learning rate, if the units ran into saturation in the course of the run.",
        "Put a normalisation layer (BatchNorm, LayerNorm) before the activation.",
        "Replace sigmoid and tanh in hidden layers by ReLU, GELU or SiLU.",
    ),
    Symptom.NO_GRADIENT: (
        "Check that the parameter takes part in the forward pass and that its output reaches the loss.",
        "Look for detach(), .data, .item(), argmax, torch.no_grad() or NumPy between it and the loss.",
        "Mend a vanishing gradient first, if there is a finding for these layers: it may have underflowed.",
        "If it is meant to be frozen, set requires_grad_(False) and leave it out of the optimizer.",
        "If its layer is always dead (ReLU of negative inputs), lower the learning rate or change its initialisation.",
    ),
    Symptom.UPDATE_TOO_LARGE: (
        "Lower the learning rate, by 3x to 10x.",
        "Warm the learning rate up over the first few hundred steps.",
        "Clip the gradient norm.",
        "Check the scale of the loss: a sum over the batch or the sequence instead of a mean multiplies the gradient.",
    ),
    Symptom.UPDATE_TOO_SMALL: (
        "Raise the learning rate; check that the scheduler does not start or stay at zero.",
        "Mend a vanishing gradient first, if there is a finding for these layers.",
        "Keep float32 master weights: in pure bf16 or fp16 an update below 1/256 of the weight rounds to nothing.",
        "Use an optimizer that scales each parameter's step (Adam, AdamW) in place of plain SGD.",
    ),
    Symptom.LOSS_SPIKE: (
        "Look at the batches of the first high steps: corrupt inputs, wrong labels, a sequence of another length.",
        "Clip what is unusual: clip=ZClip() keeps single bad gradients from the weights.",
        "Lower the learning rate, or warm it up for longer, if the updates had grown before (see the evidence).",
        "Under Adam lower beta2 (0.95), so that its second moment follows a gradient that grows.",
        "Go back to the last checkpoint before it and leave those batches out, if it does not come back.",
    ),
    Symptom.OSCILLATING_LOSS: (
        "Lower the learning rate, by 3x to 10x; or lower momentum.",
        "Check that the gradients are set to zero before each backward pass.",
        "Let the learning rate fall in the course of the run (a cosine, or ReduceLROnPlateau).",
        "Take larger batches, or accumulate over several.",
    ),
    Symptom.SLOW_CONVERGENCE: (
        "Raise the learning rate, by 10x; check that a schedule or a scaled loss does not make it tiny.",
        "Use an optimizer that scales each parameter's step (Adam, AdamW) in place of plain SGD.",
        "Bring inputs to mean 0 and variance 1.",
        "If the model was trained before and is at its best, leave it.",
    ),
    Symptom.CLIPPED_TOO_OFTEN: (
        "Raise the limit to the norm that 95 % of the steps stay below (see the evidence), or let ZClip() find it.",
        "If the loss falls well all the same, leave it: what the clipper does then is to set the step's length.",
        "Under plain SGD, read the learning rate anew: the steps are as short as the coefficient says.",
        "If the norms still rise, look for their cause: a learning rate that is too high, a sum in place of a mean.",
    ),
    Symptom.CLIPPED_UPSTREAM: (
        "Call guard.measure() right after backward(), before your own clipping: then the raw norm is recorded.",
    ),
}
