"""The layers of convolutional networks: Conv2d, BatchNorm2d."""

import numpy as np

from minivit import ops
from minivit.nn.module import Buffer, Module, Parameter


class Conv2d(Module):
    """Cross-correlation with square filters: (B, in_chans, H, W) -> (B, out_chans, rows, columns).

    The result has ``(H + 2 padding - kernel_size) // stride + 1`` rows, and columns likewise.

    Args:
        in_chans, out_chans: channels, both multiples of ``groups``.
        kernel_size, stride, padding: in pixels.
        groups: each group of output channels sees only the input channels of its own group.
        bias: whether each output channel has one.
        init: a rule of ``minivit.nn.init`` for the weight (out_chans, in_chans / groups, kernel_size, kernel_size)
            and the bias (out_chans,).

    Raises:
        ValueError: channels that do not divide into the groups.
    """

    def __init__(self, in_chans, out_chans, kernel_size, *, stride=1, padding=0, groups=1, bias=True, init):
        if in_chans % groups or out_chans % groups:
            raise ValueError(f"{in_chans} -> {out_chans} channels do not divide into {groups} groups")
        self.stride, self.padding, self.groups = stride, padding, groups
        fan_in = in_chans // groups * kernel_size**2
        self.weight = Parameter(init((out_chans, in_chans // groups, kernel_size, kernel_size)))
        self.bias = Parameter(init((out_chans,), fan_in)) if bias else None

    def forward(self, x):
        return ops.conv2d(x, self.weight, self.bias, stride=self.stride, padding=self.padding, groups=self.groups)


class BatchNorm2d(Module):
    """Normalise each channel of (B, C, H, W) over images and pixels, then scale and shift (Ioffe & Szegedy 2015).

    Training uses the batch's mean and variance, and moves the running ones towards them by ``momentum`` (the running
    variance towards the unbiased one); evaluation uses the running ones.

    Args:
        channels: C.
        eps: added to the variance.
        momentum: how far the running statistics move in each forward pass of training.
        zero_init: start the scale at 0, so that a residual branch which ends here starts as nothing, instead of 1.
    """

    def __init__(self, channels, eps=1e-5, momentum=0.1, *, zero_init=False):
        self.weight = Parameter(np.full(channels, 0 if zero_init else 1, np.float32))
        self.bias = Parameter(np.zeros(channels, np.float32))
        self.running_mean = Buffer(np.zeros(channels, np.float32))
        self.running_var = Buffer(np.ones(channels, np.float32))
        self.num_batches_tracked = Buffer(np.array(0, np.int64))  # forward passes of training
        self.eps, self.momentum = eps, momentum

    def forward(self, x):
        out = ops.batch_norm(
            x,
            self.weight,
            self.bias,
            running_mean=self.running_mean.data,
            running_var=self.running_var.data,
            training=self.training,
            momentum=self.momentum,
            eps=self.eps,
        )
        if self.training:
            self.num_batches_tracked.data += 1
        return out
