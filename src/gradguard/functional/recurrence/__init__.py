"""One step of each recurrent cell, and a loop over steps, in plain differentiable torch: slow, and what the paper says.

The faster kernels of ``gradguard.nn`` are held against these functions, and every derivative that they have no code for
(forward mode, second order, per sample) is taken through them.
"""

from gradguard.functional.recurrence.gru import gru as gru
from gradguard.functional.recurrence.layer_norm_lstm import layer_norm_lstm as layer_norm_lstm
from gradguard.functional.recurrence.layer_norm_lstm import normalized_cell_lstm as normalized_cell_lstm
from gradguard.functional.recurrence.lstm import lstm as lstm
from gradguard.functional.recurrence.rnn import rnn as rnn
from gradguard.functional.recurrence.unroll import unroll as unroll
