"""SHaRPose from the weights of other networks."""

import torch

from harness.method import find_variant
from harness.train.checkpoints import load_into, write
from methods.parts.sharpose_files import from_vitpose


def test_the_trunk_of_a_vitpose_file_starts_both_stages(tmp_path):
    torch.manual_seed(0)
    vitpose = find_variant("vitpose_tiny").build(num_joints=17, input_size=(128, 96))
    torch.nn.init.normal_(vitpose.backbone.pos_embed)
    write(tmp_path / "vitpose.safetensors", vitpose.state_dict(), {})
    variant = find_variant("sharpose_tiny")
    network = variant.build(num_joints=17, input_size=(128, 96))
    report = load_into(network, variant, tmp_path / "vitpose.safetensors", initialise=True)
    assert report.notes == ("position embedding interpolated from 16x12 to 8x6, not fine-tuned",)
    theirs, ours = vitpose.backbone.state_dict(), network.backbone.state_dict()
    for name in ("patch_embed.layers.0.weight", "blocks.0.attn.qkv.weight", "blocks.3.mlp.fc2.bias"):
        assert torch.equal(ours[name], theirs[name])
    assert torch.equal(ours["norm.weight"], theirs["last_norm.weight"])
    # ViTPose adds the class slot to every patch
    assert torch.allclose(ours["pos_embed_list.1"], theirs["pos_embed"][:, 1:] + theirs["pos_embed"][:, :1])
    assert ours["pos_embed_list.0"].shape == (1, 48, 96)


def test_a_vitpose_plus_file_gives_the_trunk_for_coco():
    state = {"backbone.pos_embed": torch.zeros(1, 3, 4), "backbone.blocks.0.mlp.fc2.weight": torch.zeros(3, 8)}
    state |= {f"backbone.blocks.0.mlp.experts.{i}.weight": torch.full((1, 8), 1.0 + i) for i in range(6)}
    found = from_vitpose(state)
    assert not any("experts" in name for name in found)
    assert found["backbone.blocks.0.mlp.fc2.weight"][:, 0].tolist() == [0, 0, 0, 1]
