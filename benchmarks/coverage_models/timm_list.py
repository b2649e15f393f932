"""The timm models of the benchmark: at least one of every family that has a model of bearable size.

A family is timm's own module, `timm.models.<family>`. Each line is `family: model@size ...`; `!` says that the size
is given to the constructor (`img_size`), because the model is made for one size only. Sizes are small, but the last
stage still has more than one position.
"""

from __future__ import annotations

import re

FAMILIES = """
beit: beit_base_patch16_224@96!
byoanet: eca_botnext26ts_256@96! halonet_h1@256 lambda_resnet26t@96
byobnet: mobileone_s1@96 gernet_s@96 repvgg_a0@96 regnetz_b16@96
cait: cait_xxs24_224@96!
coat: coat_tiny@96!
convit: convit_tiny@96!
convmixer: convmixer_768_32@96
convnext: convnext_zepto_rms@96 convnextv2_atto@96 convnext_atto@96
cpubone: cpubone_nano@96
crossvit: crossvit_tiny_240@240
csatv2: csatv2@96
cspnet: darknet17@96 cs3darknet_s@96 cspresnet50@96
cspnext: cspnext_tiny@96
davit: davit_tiny@96
deit: deit_tiny_distilled_patch16_224@96! deit_tiny_patch16_224@96!
densenet: densenet121@96
dla: dla34@96 dla60_res2net@96
dpn: dpn48b@96 dpn68@96
edgenext: edgenext_xx_small@96 edgenext_small_rw@96
efficientformer: efficientformer_l1@224
efficientformer_v2: efficientformerv2_s0@96!
efficientnet: mobilenetv2_050@96 tf_efficientnetv2_b0@96 fbnetc_100@96 tinynet_e@96 efficientnet_b0@96
    mnasnet_small@96 mixnet_s@96
efficientvim: efficientvim_m1@96
efficientvit_mit: efficientvit_b0@96
efficientvit_msra: efficientvit_m0@96!
eva: eva02_tiny_patch14_224@96! vit_tiny_patch16_dinov3_qkvb@96!
fasternet: fasternet_t0@96
fastvit: fastvit_t8@96
focalnet: focalnet_tiny_srf@96
gcvit: gcvit_xxtiny@96!
gemma4_vit: gemma4_vit_167m@96
ghostnet: ghostnet_050@96 ghostnetv3_050@96 ghostnetv2_100@96
hardcorenas: hardcorenas_b@96
hgnet: hgnetv2_b0@96
hiera: hiera_tiny_224@96!
hieradet_sam2: sam2_hiera_tiny@96
hrnet: hrnet_w18_small@96
iformer: iformer_t@96
inception_next: inception_next_atto@96
inception_resnet_v2: inception_resnet_v2@160
inception_v3: inception_v3@160
inception_v4: inception_v4@160
lcnetv2: lcnetv2_small@96
levit: levit_128s@96!
lowformer: lowformer_b0@96
mambaout: mambaout_femto@96
maxxvit: maxvit_pico_rw_256@96! coatnet_pico_rw_224@96!
metaformer: poolformer_s12@96 caformer_s18@96
mlp_mixer: gmlp_ti16_224@96! resmlp_12_224@96! mixer_s16_224@96!
mobilenetv3: mobilenetv3_small_050@96 mobilenetv4_hybrid_medium@96 mobilenetv4_conv_small@96 lcnet_050@96
mobilenetv5: mobilenetv5_base@96
mobilevit: mobilevitv2_050@96 mobilevit_xxs@96
mvitv2: mvitv2_tiny@96!
naflexvit: naflexvit_base_patch16_gap@96
nasnet: nasnetalarge@128
nest: nest_tiny@96!
nextvit: nextvit_small@96
nfnet: nf_regnet_b0@96 eca_nfnet_l0@96 nf_resnet26@96
pit: pit_ti_distilled_224@96! pit_ti_224@96!
pnasnet: pnasnet5large@128
pvt_v2: pvt_v2_b0@96
qwen3_vit: qwen3_vit_88m@96
rdnet: rdnet_tiny@96
regnet: regnety_002@96 regnetx_002@96
repghost: repghostnet_050@96
repvit: repvit_m1@96
res2net: res2net50_26w_4s@96 res2next50@96
resnest: resnest14d@96
resnet: resnet10t@96 seresnet18@96 resnet18@96 resnext50_32x4d@96 ecaresnet26t@96
resnetv2: resnetv2_18@96 resnetv2_50x1_bit@96
rexnet: rexnet_100@96
selecsls: selecsls42@96
senet: legacy_seresnext26_32x4d@96 legacy_seresnet18@96
sequencer: sequencer2d_s@96!
shvit: shvit_s1@96
sknet: skresnet18@96
starnet: starnet_s050@96
swiftformer: swiftformer_xs@96!
swin_transformer: swin_tiny_patch4_window7_224@96!
swin_transformer_v2: swinv2_tiny_window8_256@96!
swin_transformer_v2_cr: swinv2_cr_tiny_224@96!
tiny_vit: tiny_vit_5m_224@96
tnt: tnt_s_patch16_224@96!
tresnet: tresnet_m@96
twins: twins_pcpvt_small@96! twins_svt_small@96!
vgg: vgg11_bn@96
visformer: visformer_tiny@96!
vision_transformer: vit_tiny_patch16_224@96!
vision_transformer_hybrid: vit_tiny_r_s16_p8_224@96!
vision_transformer_relpos: vit_relpos_small_patch16_224@96!
vision_transformer_sam: samvit_base_patch16_224@96!
vitamin: vitamin_small_224@96!
volo: volo_d1_224@96!
vovnet: ese_vovnet19b_dw@96 ese_vovnet19b_slim_dw@96 vovnet39a@96
xception: legacy_xception@128
xception_aligned: xception41@128
xcit: xcit_nano_12_p16_224@96!
"""


def timm_models() -> list[tuple[str, str, int, bool]]:
    """Family, model, input size in pixels, and whether the constructor must be told the size."""
    models: list[tuple[str, str, int, bool]] = []
    family = ""
    for word in FAMILIES.split():
        if word.endswith(":"):
            family = word[:-1]
            continue
        match = re.fullmatch(r"(\w+)@(\d+)(!?)", word)
        if match is None:
            raise ValueError(f"not model@size: {word!r}")
        models.append((family, match[1], int(match[2]), bool(match[3])))
    return models
