"""One step of each recurrent cell, and a loop over steps, in plain differentiable torch: slow, and what the paper says.

The faster kernels of ``gradguard.nn`` are held against these functions, and every derivative that they have no code for
(forward mode, second order, per sample) is taken through them. Not for training on long sequences: modules are faster.

All steps are called alike; what one adds is in its own docstring. Beside what torch raises there is a ``ValueError``
for a nonlinearity that is neither "tanh" nor "relu".

- ``x_BI``: the input, [B, I]; ``h_BH`` or ``h_BP``: the h before, [B, H] or projected [B, P], in the dtype of x;
  ``c_BH``: the c before, [B, H], float32 or wider.
- ``weight_ih``, ``weight_hh``: one block of H rows for each gate, in the order of the equations, [G, I] and [G, P];
  ``bias_ih``, ``bias_hh``: [G], or None; ``gain_...``: of a norm, as wide as what is normed; ``weight_hr``: [P, H], or
  None.
- ``drop_h``: [B, P], by which the h that enters the products is multiplied, not the one that is carried; None for 1.

They return the new states as a tuple, h in the dtype of h, c in that of c, on the device of x.
"""

from gradguard.functional.recurrence.batch_norm_lstm import Moments as Moments
from gradguard.functional.recurrence.batch_norm_lstm import batch_norm_lstm as batch_norm_lstm
from gradguard.functional.recurrence.batch_norm_lstm import moments as moments
from gradguard.functional.recurrence.coupled_lstm import coupled_lstm as coupled_lstm
from gradguard.functional.recurrence.group_norm_lstm import group_norm_lstm as group_norm_lstm
from gradguard.functional.recurrence.gru import gru as gru
from gradguard.functional.recurrence.ind_rnn import ind_rnn as ind_rnn
from gradguard.functional.recurrence.janet import janet as janet
from gradguard.functional.recurrence.layer_norm_gru import layer_norm_gru as layer_norm_gru
from gradguard.functional.recurrence.layer_norm_lstm import layer_norm_lstm as layer_norm_lstm
from gradguard.functional.recurrence.layer_norm_lstm import normalized_cell_lstm as normalized_cell_lstm
from gradguard.functional.recurrence.lstm import lstm as lstm
from gradguard.functional.recurrence.peephole_lstm import peephole_lstm as peephole_lstm
from gradguard.functional.recurrence.reset_before import mut1 as mut1
from gradguard.functional.recurrence.reset_before import mut2 as mut2
from gradguard.functional.recurrence.reset_before import mut3 as mut3
from gradguard.functional.recurrence.reset_before import original_gru as original_gru
from gradguard.functional.recurrence.rms_norm_lstm import rms_norm_lstm as rms_norm_lstm
from gradguard.functional.recurrence.rnn import rnn as rnn
from gradguard.functional.recurrence.unroll import unroll as unroll
