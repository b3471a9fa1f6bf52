"""The published network of Bourigault et al. (MICCAI 2024): ResNet50 and a bottleneck transformer.

The layout and the names of the weights follow the released checkpoint of
github.com/EmmanuelleB985/DXA-to-3D (``model.py``, class ``RegressionModel_Transformer``):

===========  ====================================================================================
``model``    the children of torchvision's ResNet50 without its pooling and classifier, as a
             sequence, so ``model.0`` is the stem's convolution, ``model.1`` its batch norm and
             ``model.4`` to ``model.7`` are ``layer1`` to ``layer4``; 2048 channels, stride 32
``layer``    a stack of three bottleneck transformer blocks (Srinivas et al., CVPR 2021) as in the
             package bottleneck-transformer-pytorch: 7 x 7 cells, 2048 channels in and out,
             projection to 512, four heads of 128, relative positions, no downsampling
``linear``   2048 to 1254 after the global average
===========  ====================================================================================

It is written in plain PyTorch, so neither package is needed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

ROWS = 209
COLUMNS = 6
OUTPUTS = ROWS * COLUMNS
INPUT_SIZE = 224
STRIDE = 32
CELLS = INPUT_SIZE // STRIDE
CHANNELS = 2048


class ResidualBlock(nn.Module):
    """Bottleneck block of ResNet50 v1.5: 1 x 1, 3 x 3 (carries the stride), 1 x 1, and a shortcut.

    Parameters
    ----------
    channels_in, width : int
        Channels of the input and of the 3 x 3 convolution; the output has ``4 * width``.
    stride : int
        Stride of the 3 x 3 convolution and of the shortcut.
    """

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        channels_out = 4 * width
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels_in != channels_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, channels_in, H, W) to (N, 4 * width, H / stride, W / stride)."""
        shortcut = features if self.downsample is None else self.downsample(features)
        inner = self.relu(self.bn1(self.conv1(features)))
        inner = self.relu(self.bn2(self.conv2(inner)))
        return self.relu(self.bn3(self.conv3(inner)) + shortcut)


def resnet50_trunk() -> nn.Sequential:
    """Return ResNet50 up to its last feature map, with the children in torchvision's order.

    Returns
    -------
    nn.Sequential
        Eight children (stem convolution, batch norm, ReLU, max pooling, four stages); maps
        (N, 3, H, W) to (N, 2048, H / 32, W / 32).
    """
    stages = []
    channels_in = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        stage = [ResidualBlock(channels_in, width, stride)]
        channels_in = 4 * width
        stage += [ResidualBlock(channels_in, width, 1) for _ in range(blocks - 1)]
        stages.append(nn.Sequential(*stage))
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
        *stages,
    )


def relative_table(embedding: Tensor, cells: int) -> Tensor:
    """Return the embedding of every query-to-key offset along one axis.

    The learned embedding belongs to a map of ``L`` cells and holds one vector for each offset
    key - query from ``-(L - 1)`` to ``L - 1``. With ``cells == L`` the vectors are used as they
    are. With another number of cells the image is taken as the same crop at another scale, so an
    offset of ``d`` cells is ``d * L / cells`` learned cells; the vector there is interpolated
    linearly, and offsets beyond the ends take the end's vector.

    Parameters
    ----------
    embedding : Tensor
        (2 L - 1, D).
    cells : int
        Cells of the map along this axis.

    Returns
    -------
    Tensor
        (cells, cells, D): query, key, feature.
    """
    learned_cells = (embedding.shape[0] + 1) // 2
    if cells != learned_cells:
        offsets = torch.arange(1 - cells, cells, device=embedding.device, dtype=embedding.dtype)
        place = (offsets * learned_cells / cells + learned_cells - 1).clamp(0, embedding.shape[0] - 1)
        below = place.floor().long().clamp(max=embedding.shape[0] - 2)
        fraction = (place - below).unsqueeze(1)
        embedding = embedding[below] * (1 - fraction) + embedding[below + 1] * fraction
    position = torch.arange(cells, device=embedding.device)
    return embedding[position.unsqueeze(0) - position.unsqueeze(1) + cells - 1]


class RelativePosition(nn.Module):
    """Position term of the attention: the query's product with the offset's row and column vector.

    Parameters
    ----------
    cells, head_channels : int
        Cells of the learned map along each axis, and channels of one head.
    """

    def __init__(self, cells: int, head_channels: int) -> None:
        super().__init__()
        scale = head_channels**-0.5
        self.rel_height = nn.Parameter(torch.randn(2 * cells - 1, head_channels) * scale)
        self.rel_width = nn.Parameter(torch.randn(2 * cells - 1, head_channels) * scale)

    def forward(self, query: Tensor, height: int, width: int) -> Tensor:
        """Map queries (N, heads, height * width, D) to logits (N, heads, queries, keys)."""
        batch, heads, tokens, channels = query.shape
        grid = query.reshape(batch, heads, height, width, channels)
        rows = grid @ relative_table(self.rel_height, height).transpose(1, 2)
        columns = grid.transpose(2, 3) @ relative_table(self.rel_width, width).transpose(1, 2)
        logits = rows.unsqueeze(-1) + columns.transpose(2, 3).unsqueeze(-2)
        return logits.reshape(batch, heads, tokens, tokens)


class SelfAttention(nn.Module):
    """All-to-all attention over the cells of a feature map, with relative positions.

    Parameters
    ----------
    channels_in, cells, heads, head_channels : int
        Channels of the map, cells along each axis of the learned map, heads, channels of one head.
    """

    def __init__(self, channels_in: int, cells: int, heads: int, head_channels: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_channels = head_channels
        self.to_qkv = nn.Conv2d(channels_in, 3 * heads * head_channels, 1, bias=False)
        self.pos_emb = RelativePosition(cells, head_channels)

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, channels_in, H, W) to (N, heads * head_channels, H, W)."""
        batch, _, height, width = features.shape
        split = self.to_qkv(features).reshape(batch, 3, self.heads, self.head_channels, height * width)
        query, key, value = (part.transpose(-1, -2) for part in split.unbind(1))
        query = query * self.head_channels**-0.5
        logits = query @ key.transpose(-1, -2) + self.pos_emb(query, height, width)
        mixed = logits.softmax(dim=-1) @ value
        return mixed.transpose(-1, -2).reshape(batch, self.heads * self.head_channels, height, width)


class BottleBlock(nn.Module):
    """Residual block whose 3 x 3 convolution is replaced by self-attention.

    Parameters
    ----------
    channels : int
        Channels of input and output.
    cells : int
        Cells of the learned map along each axis.
    projection : int
        The block works on ``channels / projection`` channels inside.
    heads, head_channels : int
        Heads of the attention and channels of one.
    """

    def __init__(self, channels: int, cells: int, projection: int, heads: int, head_channels: int) -> None:
        super().__init__()
        inner = channels // projection
        mixed = heads * head_channels
        # The identity replaces the pooling of the released layout, to keep the later indices.
        self.net = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            SelfAttention(inner, cells, heads, head_channels),
            nn.Identity(),
            nn.BatchNorm2d(mixed),
            nn.ReLU(inplace=True),
            nn.Conv2d(mixed, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, channels, H, W) to the same shape."""
        return self.activation(self.net(features) + features)


class BottleStack(nn.Module):
    """Stack of three bottleneck transformer blocks, as in the released checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(*(BottleBlock(CHANNELS, CELLS, 4, 4, 128) for _ in range(3)))

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, 2048, H, W) to the same shape."""
        return self.net(features)


class SpineRegressor(nn.Module):
    """Map a spine crop to six curves; weights are named as in the released checkpoint.

    The input is float32 (N, 3, 224, 224) in [0, 1], three equal channels, without ImageNet's mean
    and deviation. The output is float32 (N, 1254): read row-major as (N, 209, 6), crop pixels / 224,
    columns coronal left, centre, right, sagittal anterior, centre, posterior. Training may use
    another height and width that are multiples of 32, see `relative_table`; at 224 the network is
    exactly the published one.

    Parameters
    ----------
    transformer : bool
        False for ResNet50 without bottleneck transformer, as in the paper's comparison.
    """

    architecture = (
        "ResNet50 trunk, three bottleneck transformer blocks (7 x 7 cells, four heads of 128, relative "
        "positions), global average, linear to 1254 (Bourigault et al., MICCAI 2024)"
    )

    def __init__(self, *, transformer: bool = True) -> None:
        super().__init__()
        self.model = resnet50_trunk()
        self.layer: nn.Module = BottleStack() if transformer else nn.Identity()
        self.linear = nn.Linear(CHANNELS, OUTPUTS)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, 1254); see the class."""
        features = self.layer(self.model(images))
        return self.linear(features.mean(dim=(2, 3)))

    @torch.no_grad()
    def init_(self, mean_output: Tensor | None = None) -> SpineRegressor:
        """Initialise weights for training from scratch, in place.

        Convolutions get He's normal initialisation, every batch norm gamma 1 except the last of each
        residual branch, which gets 0 so that a block starts as its shortcut (Goyal et al. 2017; the
        published stack does the same). The last layer starts small around `mean_output`.

        Parameters
        ----------
        mean_output : Tensor, optional
            (1254,) mean of the training targets, the bias of the last layer; 0.5 (the crop's
            middle) where it is not given.

        Returns
        -------
        SpineRegressor
            The network itself.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, RelativePosition):
                for embedding in (module.rel_height, module.rel_width):
                    nn.init.normal_(embedding, std=embedding.shape[1] ** -0.5)
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                nn.init.zeros_(module.bn3.weight)
            elif isinstance(module, BottleBlock):
                nn.init.zeros_(module.net[-1].weight)
        nn.init.normal_(self.linear.weight, std=1e-3)
        if mean_output is None:
            nn.init.constant_(self.linear.bias, 0.5)
        else:
            self.linear.bias.copy_(mean_output.reshape(OUTPUTS))
        return self
