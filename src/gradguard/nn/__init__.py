"""Drop-in recurrent modules with the contract of ``torch.nn.LSTM``, and their cells."""

from gradguard.nn.base import AbstractRecurrent as AbstractRecurrent
from gradguard.nn.base import AllStates as AllStates
from gradguard.nn.cell import AbstractCell as AbstractCell
from gradguard.nn.gru import GRU as GRU
from gradguard.nn.gru import GRUCell as GRUCell
from gradguard.nn.layer_norm_lstm import LayerNormLSTM as LayerNormLSTM
from gradguard.nn.layer_norm_lstm import LayerNormLSTMCell as LayerNormLSTMCell
from gradguard.nn.lstm import LSTM as LSTM
from gradguard.nn.lstm import LSTMCell as LSTMCell
from gradguard.nn.normalized_cell_lstm import NormalizedCellLSTM as NormalizedCellLSTM
from gradguard.nn.normalized_cell_lstm import NormalizedCellLSTMCell as NormalizedCellLSTMCell
from gradguard.nn.options import Options as Options
from gradguard.nn.rnn import RNN as RNN
from gradguard.nn.rnn import RNNCell as RNNCell
