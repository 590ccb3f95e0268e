"""Closed forms of single layers against hand counts."""

from methods.parts.arithmetic import conv_macs, deconv_macs, linear_macs, shrink


def test_a_convolution_is_counted_at_its_output_positions():
    assert conv_macs(2, 5, 3, (4, 3)) == 9 * 2 * 5 * 12


def test_groups_divide_the_input_channels_of_a_convolution():
    assert conv_macs(8, 8, 3, (2, 2), groups=8) == 9 * 8 * 4


def test_a_transposed_convolution_is_counted_at_its_input_positions():
    assert deconv_macs(2, 5, 4, (4, 3)) == 16 * 2 * 5 * 12


def test_a_linear_layer_is_counted_once_per_row():
    assert linear_macs(7, 3, rows=10) == 210


def test_odd_sizes_round_up_when_halved():
    assert shrink((7, 6), 2) == (4, 3)
