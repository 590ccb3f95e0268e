"""A method of one's own: a single convolution."""

from torch import nn

from harness.method import TopDownOutput, Variant


class OneConv(nn.Module):
    def __init__(self, num_joints, input_size):
        super().__init__()
        self.input_size = input_size
        self.conv = nn.Conv2d(3, num_joints, 8, stride=4, padding=2)

    def predict(self, images, settings):
        return TopDownOutput(exits=[self.conv(images)])

    def macs(self, trace):
        height, width = self.input_size
        return self.conv.weight.numel() * (height // 4) * (width // 4)


VARIANTS = (Variant(name="oneconv", method="OneConv", build=OneConv, input_size=(128, 96)),)
