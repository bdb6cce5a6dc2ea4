"""One step of the cells whose reset gate stands before the product: the GRU as it was first written, and MUT1 to MUT3.

Shape legend: B = batch, I = input, H = hidden; gates r, z, n. h has the dtype of x; what is summed up is float32 or
wider.
"""

from __future__ import annotations

from torch import Tensor

from gradguard.functional.recurrence.parts import biased, dropped, product, wide


def original_gru(
    x_BI: Tensor,
    h_BH: Tensor,
    *,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    drop_h: Tensor | None = None,
) -> tuple[Tensor]:
    r"""Take one step of the first GRU, whose reset gate stands before the product.

    .. math:: r &= \sigma(W_r x_t + U_r h_{t-1} + b_r) \\
        z &= \sigma(W_z x_t + U_z h_{t-1} + b_z) \\
        n &= \tanh(W_n x_t + U_n (r \odot h_{t-1}) + b_n) \\
        h_t &= (1 - z) \odot n + z \odot h_{t-1}

    ``drop_h``, [B, H], multiplies the h that enters the products: the mask of variational dropout. Source: Cho et al.
    2014, arXiv 1406.1078v3, equations 5 to 8. Host sync: none. Mutates: nothing.

    >>> import torch
    >>> zero = torch.zeros(3, 1)
    >>> original_gru(torch.ones(1, 1), torch.ones(1, 1), weight_ih=zero, weight_hh=zero)  # z is a half, n is 0
    (tensor([[0.5000]]),)
    """
    x_r, x_z, x_n = biased(product(x_BI, weight_ih), bias_ih).chunk(3, dim=-1)
    (u_r, u_z, u_n), h = weight_hh.chunk(3), dropped(h_BH, drop_h)
    r, z = (x_r + product(h, u_r)).sigmoid(), (x_z + product(h, u_z)).sigmoid()
    n = _candidate(x_n, r, h, u_n)
    return ((n + z * (h_BH - n)).to(h_BH.dtype),)


def mut1(
    x_BI: Tensor,
    h_BH: Tensor,
    *,
    weight_ih: Tensor,
    weight_hh: Tensor,
    weight_in: Tensor | None = None,
    bias_ih: Tensor | None = None,
    drop_h: Tensor | None = None,
) -> tuple[Tensor]:
    r"""Take one step of MUT1.

    .. math:: z &= \sigma(W_z x_t + b_z) \\
        r &= \sigma(W_r x_t + U_r h_{t-1} + b_r) \\
        n &= \tanh(U_n (r \odot h_{t-1}) + \tanh(x_t) + b_n) \\
        h_t &= z \odot n + (1 - z) \odot h_{t-1}

    ``weight_ih`` has the blocks r and z, ``weight_hh`` r and n, ``bias_ih`` all three. Where I is not H,
    ``weight_in``, [H, I], is multiplied with the x in :math:`\tanh(x_t)`. ``drop_h``, [B, H], multiplies the h that
    enters the products. Source: Jozefowicz et al. 2015, "An empirical exploration of recurrent network architectures".
    Host sync: none. Mutates: nothing.

    >>> import torch
    >>> one, zero = torch.ones(1, 1), torch.zeros(2, 1)
    >>> mut1(one, one, weight_ih=zero, weight_hh=zero)  # the mean of 1 and tanh(tanh(1))
    (tensor([[0.8210]]),)
    """
    (w_r, w_z), (u_r, u_n) = weight_ih.chunk(2), weight_hh.chunk(2)
    h, (b_r, b_z, b_n) = dropped(h_BH, drop_h), _thirds(bias_ih)
    z = biased(product(x_BI, w_z), b_z).sigmoid()
    r = biased(product(x_BI, w_r) + product(h, u_r), b_r).sigmoid()
    return _written(h_BH, _candidate(biased(_unweighted(x_BI, weight_in).tanh(), b_n), r, h, u_n), z)


def mut2(
    x_BI: Tensor,
    h_BH: Tensor,
    *,
    weight_ih: Tensor,
    weight_hh: Tensor,
    weight_in: Tensor | None = None,
    bias_ih: Tensor | None = None,
    drop_h: Tensor | None = None,
) -> tuple[Tensor]:
    r"""Take one step of MUT2.

    .. math:: z &= \sigma(W_z x_t + U_z h_{t-1} + b_z) \\
        r &= \sigma(x_t + U_r h_{t-1} + b_r) \\
        n &= \tanh(U_n (r \odot h_{t-1}) + W_n x_t + b_n) \\
        h_t &= z \odot n + (1 - z) \odot h_{t-1}

    ``weight_ih`` has the blocks z and n, ``weight_hh`` and ``bias_ih`` have all three. The rest is as in :func:`mut1`.

    >>> import torch
    >>> one, zero = torch.ones(1, 1), torch.zeros(3, 1)
    >>> mut2(one, one, weight_ih=zero[:2], weight_hh=zero)  # z is a half, n is 0
    (tensor([[0.5000]]),)
    """
    (w_z, w_n), (u_r, u_z, u_n) = weight_ih.chunk(2), weight_hh.chunk(3)
    h, (b_r, b_z, b_n) = dropped(h_BH, drop_h), _thirds(bias_ih)
    z = biased(product(x_BI, w_z) + product(h, u_z), b_z).sigmoid()
    r = biased(_unweighted(x_BI, weight_in) + product(h, u_r), b_r).sigmoid()
    return _written(h_BH, _candidate(biased(product(x_BI, w_n), b_n), r, h, u_n), z)


def mut3(
    x_BI: Tensor,
    h_BH: Tensor,
    *,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    drop_h: Tensor | None = None,
) -> tuple[Tensor]:
    r"""Take one step of MUT3.

    .. math:: z &= \sigma(W_z x_t + U_z \tanh(h_{t-1}) + b_z) \\
        r &= \sigma(W_r x_t + U_r h_{t-1} + b_r) \\
        n &= \tanh(U_n (r \odot h_{t-1}) + W_n x_t + b_n) \\
        h_t &= z \odot n + (1 - z) \odot h_{t-1}

    All three parameters have the blocks r, z and n. The rest is as in :func:`mut1`.

    >>> import torch
    >>> one, zero = torch.ones(1, 1), torch.zeros(3, 1)
    >>> mut3(one, one, weight_ih=zero, weight_hh=zero)  # z is a half, n is 0
    (tensor([[0.5000]]),)
    """
    x_r, x_z, x_n = biased(product(x_BI, weight_ih), bias_ih).chunk(3, dim=-1)
    (u_r, u_z, u_n), h = weight_hh.chunk(3), dropped(h_BH, drop_h)
    r, z = (x_r + product(h, u_r)).sigmoid(), (x_z + product(h.tanh(), u_z)).sigmoid()
    return _written(h_BH, _candidate(x_n, r, h, u_n), z)


def _candidate(x_n: Tensor, r: Tensor, h: Tensor, u_n: Tensor) -> Tensor:
    """What may be written: the reset h enters the product."""
    return (x_n + product((r * h).to(h.dtype), u_n)).tanh()


def _written(h: Tensor, n: Tensor, z: Tensor) -> tuple[Tensor]:
    """The new h, where z writes."""
    return ((h + z * (n - h)).to(h.dtype),)


def _unweighted(x: Tensor, weight_in: Tensor | None) -> Tensor:
    """The x that has no weight in the paper, in the wide dtype."""
    return x.to(wide(x.dtype)) if weight_in is None else product(x, weight_in)


def _thirds(bias: Tensor | None) -> tuple[Tensor | None, ...]:
    return (None, None, None) if bias is None else bias.chunk(3)
