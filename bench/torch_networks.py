"""Three networks for images, in PyTorch: small definitions, without weights."""

import torch
from torch import nn


def conv_norm(inputs, outputs, kernel=3, stride=1, groups=1, activation=None):
    """Return a convolution, a batch norm and perhaps an activation, as a list of modules."""
    padding = kernel // 2
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    layers = [convolution, nn.BatchNorm2d(outputs)]
    return layers if activation is None else [*layers, activation(inplace=True)]


class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(*conv_norm(inputs, outputs, 1, stride))

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


def resnet18(classes=1000):
    """K. He et al., "Deep Residual Learning for Image Recognition", 2016."""
    layers = [*conv_norm(3, 64, 7, 2, activation=nn.ReLU), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1)]
        inputs = outputs
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)
    return nn.Sequential(*layers, *head)


class InvertedResidual(nn.Module):
    def __init__(self, inputs, outputs, stride, expansion):
        super().__init__()
        hidden = inputs * expansion
        layers = [] if expansion == 1 else conv_norm(inputs, hidden, 1, activation=nn.ReLU6)
        layers += conv_norm(hidden, hidden, 3, stride, hidden, activation=nn.ReLU6)
        self.conv = nn.Sequential(*layers, *conv_norm(hidden, outputs, 1))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.conv(x) if self.adds else self.conv(x)


def mobilenet_v2(classes=1000):
    """M. Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018."""
    layers = conv_norm(3, 32, 3, 2, activation=nn.ReLU6)
    inputs = 32
    stages = (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    )
    for expansion, outputs, repeats, stride in stages:
        for i in range(repeats):
            layers.append(InvertedResidual(inputs, outputs, stride if i == 0 else 1, expansion))
            inputs = outputs
    layers += conv_norm(inputs, 1280, 1, activation=nn.ReLU6)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, classes))


def double_conv(inputs, outputs):
    first = conv_norm(inputs, outputs, activation=nn.ReLU)
    return nn.Sequential(*first, *conv_norm(outputs, outputs, activation=nn.ReLU))


class UNet(nn.Module):
    """O. Ronneberger et al., "U-Net", 2015, with batch norm, and half the depth and width."""

    def __init__(self, classes, width=32):
        super().__init__()
        self.down1, self.down2 = double_conv(3, width), double_conv(width, 2 * width)
        self.bottom = double_conv(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.join2 = double_conv(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.join1 = double_conv(2 * width, width)
        self.pool, self.head = nn.MaxPool2d(2), nn.Conv2d(width, classes, 1)

    def forward(self, x):
        first = self.down1(x)
        second = self.down2(self.pool(first))
        third = self.bottom(self.pool(second))
        second = self.join2(torch.cat([second, self.up2(third)], dim=1))
        first = self.join1(torch.cat([first, self.up1(second)], dim=1))
        return self.head(first)


def unet(classes=2):
    return UNet(classes)
