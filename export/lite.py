"""Define spine-lite, a smaller network with the inputs and outputs of the published one, for slower machines.

It is the published ResNet50 trunk without its fourth stage and without the transformer, at half the resolution from
the first pooling on, reading one of the three equal channels. Its last layer reads every cell of a narrow map instead
of an average, which preserves positions. It is initialised from the large network (`SpineLite.start_from`) and trained
on its outputs (`export.training.train --teacher`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.regressor import CELLS, OUTPUTS, ResidualBlock, SpineRegressor

STAGES = ((64, 3, 1), (128, 4, 2), (256, 4, 2))
TRUNK_CHANNELS = 1024
CELL_CHANNELS = 32
# Children with weights: of this trunk, of the published network.
_SHARED = ((1, 1), (5, 4), (6, 5), (7, 6))


class SpineLite(nn.Module):
    """Map a spine crop to six curves with about a sixth of the published network's arithmetic.

    Inputs and outputs are those of `export.regressor.SpineRegressor`, at 224 x 224 only.
    """

    features = CELLS * CELLS * CELL_CHANNELS
    architecture = (
        "spine-lite: ResNet50's stem on one channel, its first three stages with 3, 4 and 4 blocks at half the "
        "resolution, 32 channels in 7 x 7 cells, linear to 1254; taught by the network of Bourigault et al. 2024"
    )

    def __init__(self) -> None:
        super().__init__()
        stages = []
        channels_in = 64
        for width, blocks, stride in STAGES:
            stage = [ResidualBlock(channels_in, width, stride)]
            channels_in = 4 * width
            stage += [ResidualBlock(channels_in, width, 1) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(*stage))
        self.model = nn.Sequential(
            nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.AvgPool2d(2),
            *stages,
        )
        self.layer = nn.Sequential(
            nn.Conv2d(TRUNK_CHANNELS, CELL_CHANNELS, 1, bias=False),
            nn.BatchNorm2d(CELL_CHANNELS),
            nn.ReLU(inplace=True),
        )
        self.linear = nn.Linear(self.features, OUTPUTS)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, 224, 224) to (N, 1254); see the class."""
        return self.linear(self.layer(self.model(images[:, :1])).flatten(1))

    @torch.no_grad()
    def init_(self) -> SpineLite:
        """Set weights to train from scratch, in place, as `SpineRegressor.init_` does."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                nn.init.zeros_(module.bn3.weight)
        nn.init.normal_(self.linear.weight, std=1e-3)
        nn.init.constant_(self.linear.bias, 0.5)
        return self

    @torch.no_grad()
    def start_from(self, large: SpineRegressor) -> SpineLite:
        """Copy the weights common to both networks from the large one, in place.

        Returns
        -------
        SpineLite
            The network itself.
        """
        # For equal channels, the large network computes their sum.
        self.model[0].weight.copy_(large.model[0].weight.sum(dim=1, keepdim=True))
        for here, there in _SHARED:
            given = large.model[there].state_dict()
            self.model[here].load_state_dict({name: given[name] for name in self.model[here].state_dict()})
        return self


# Networks that can be exported.
Network = SpineRegressor | SpineLite
