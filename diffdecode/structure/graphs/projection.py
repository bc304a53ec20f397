"""Projections of semantic graphs onto P_SDP, equation 6 of SPIGOT (Peng, Thomson and Smith, ACL 2018).

One simplex an arc, with "no arc" as an extra label. Both are differentiable.
"""

import torch
from torch import Tensor

from diffdecode.structure.simplex import project_last_axis, refuse_unprojectable


def project_sdp(arcs: Tensor, labels: Tensor, *, check: bool = True) -> tuple[Tensor, Tensor]:
    """Projection onto P_SDP, equation 6: the labels of an arc sum to the arc, all within [0, 1].

    With "no arc" = 1 - arc as one more label, the constraint says that L+1 numbers lie on the simplex, and
    the distance is unchanged because (1 - a) - (1 - a') = -(a - a'). So the exact projection is one
    projection of L+1 entries on the simplex.

    Args:
        arcs: ``[...]`` points of the unlabelled arcs; -inf forbids an arc.
        labels: ``[..., L]`` points of the labelled arcs; -inf forbids a label.
        check: otherwise NaN passes through, and nothing waits for the device.

    Returns:
        the projected ``(arcs [...], labels [..., L])``.

    Raises:
        ValueError: the shapes disagree; NaN or +inf.
    """
    if arcs.shape != labels.shape[:-1]:
        raise ValueError(f"labels {tuple(labels.shape)} need arcs of shape {tuple(labels.shape[:-1])}, "
                         f"got {tuple(arcs.shape)}")  # fmt: skip
    forbidden = arcs == -torch.inf
    no_arc = 1 - arcs.masked_fill(forbidden, 0)
    entries = torch.cat([labels.masked_fill(forbidden.unsqueeze(-1), -torch.inf), no_arc.unsqueeze(-1)], -1)
    projected = project_last_axis(entries)[..., :-1]
    if check:
        refuse_unprojectable(projected, "P_SDP")
    return projected.sum(-1), projected


def project_sdp_sequential(arcs: Tensor, labels: Tensor, *, check: bool = True) -> tuple[Tensor, Tensor]:
    """What the authors' released code does for P_SDP: clip the arc to [0, 1], then fit its labels to it.

    Feasible but not the nearest point of P_SDP.

    Args:
        arcs, labels, check: as for :func:`project_sdp`, ``[...]`` and ``[..., L]``.

    Returns:
        the projected ``(arcs [...], labels [..., L])``.

    Raises:
        ValueError: NaN or +inf.
    """
    arcs = arcs.clamp(0, 1)
    present = (arcs > 0).unsqueeze(-1)
    scale = torch.where(present, arcs.unsqueeze(-1), 1)
    distance = torch.where(present, labels - labels.amax(-1, keepdim=True), 0)
    # {p >= 0, sum p = a} is the simplex enlarged a times.
    fitted = torch.where(present, project_last_axis(distance / scale) * scale, 0)
    if check:
        refuse_unprojectable(fitted, "P_SDP")
    return arcs, fitted
